package main

import (
	"crypto/tls"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
)

// fleetOf lets devices in, so many at a time, without their connections.
func fleetOf(t testing.TB, dir, addr string, n, atATime int) []*machine {
	t.Helper()
	out, err := cli(t, "token", "create", "--dir", dir, "--server", addr, "--uses", strconv.Itoa(n))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.Fields(out)[0]
	conn := dialTest(t, dir, addr, nil)
	machines := make([]*machine, n)
	atOnce(t, n, atATime, func(i int) error {
		key, csr := newCSR(t)
		resp, err := controlv1.NewControlServiceClient(conn).Join(t.Context(), &controlv1.JoinRequest{Token: token, Csr: csr})
		machines[i] = &machine{id: resp.GetDeviceId(), identity: tls.Certificate{Certificate: resp.GetChain(), PrivateKey: key}}
		return err
	})
	return machines
}

// atOnce does n things, so many at a time, and gives what each took.
func atOnce(t testing.TB, n, callers int, do func(i int) error) []time.Duration {
	t.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, callers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				begin := time.Now()
				if err := do(int(i)); err != nil {
					t.Error(err)
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return took
}
