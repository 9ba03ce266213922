package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
)

// TestOverloadedServer: 150 devices with identities and TLS connections of their
// own submit at once at a server that takes 4 calls at a time. Who is refused comes
// back when the server said, as agents do. In the end each has its one certificate.
func TestOverloadedServer(t *testing.T) {
	long(t)
	const devices = 150
	dir := found(t)
	path := filepath.Join(dir, "server.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "max_calls: 4096", "max_calls: 4", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := serve(t, dir)
	machines := fleetOf(t, dir, c.addr, devices, 1) // one after the other, so that nobody is refused yet
	var refused atomic.Int64
	patiently := func(call func() error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		for {
			err := call()
			if status.Code(err) != codes.ResourceExhausted {
				return err
			}
			refused.Add(1)
			select {
			case <-time.After(retryOf(t, err)):
			case <-ctx.Done():
				return err
			}
		}
	}
	orders := make([]*order, devices)
	for i, m := range machines {
		m.dial(t, dir, c.addr)
		users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
		if _, err := m.Sync(t.Context(), &controlv1.SyncRequest{Users: users}); err != nil {
			t.Fatal(err)
		}
		_, csr := newCSR(t)
		orders[i] = &order{submit: wanted(i, csr)}
	}
	var wg sync.WaitGroup
	for i, o := range orders {
		wg.Go(func() {
			if err := patiently(func() error { return o.send(t.Context(), nil, machines[i]) }); err != nil {
				t.Errorf("device %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("nobody was refused: the server was not overloaded")
	}
	t.Logf("%d refusals", refused.Load())
	verifyStorm(t, dir, c.addr, orders)
	c.stop(t)
}

// TestManyHandshakes: 150 devices come at once to a server that shakes hands with 4
// of one address at a time, and these places are taken by some that say nothing. Who
// is turned away comes again, as agents do. In the end each has its one certificate.
func TestManyHandshakes(t *testing.T) {
	long(t)
	const devices, places = 150, 4
	dir := found(t)
	setting(t, dir, "max_handshakes", strconv.Itoa(2*places))
	setting(t, dir, "metrics", "127.0.0.1:0")
	c := serve(t, dir)
	machines := fleetOf(t, dir, c.addr, devices, 1)
	for _, m := range machines {
		m.dial(t, dir, c.addr)
		users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
		if _, err := m.Sync(t.Context(), &controlv1.SyncRequest{Users: users}); err != nil {
			t.Fatal(err)
		}
	}
	for range places {
		silent, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
	}
	for !strings.Contains(c.read(t, "/metrics"), fmt.Sprintf("smime_server_handshakes %d\n", places)) {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	orders := make([]*order, devices)
	var turnedAway atomic.Int64
	atOnce(t, devices, devices, func(i int) error {
		_, csr := newCSR(t)
		orders[i] = &order{submit: wanted(i, csr)}
		for {
			conn := dialTest(t, dir, c.addr, &machines[i].identity)
			machines[i].ControlServiceClient = controlv1.NewControlServiceClient(conn)
			err := orders[i].send(ctx, nil, machines[i])
			_ = conn.Close()
			if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
				return err
			}
			turnedAway.Add(1)
			time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond))
		}
	})
	if turnedAway.Load() < devices {
		t.Errorf("%d were turned away: the places were free", turnedAway.Load())
	}
	figures := c.read(t, "/metrics")
	for _, want := range []string{`connections_total{result="refused_address"}`, `connections_total{result="stalled"}`} {
		if !strings.Contains(figures, want) {
			t.Errorf("the figures have no %s", want)
		}
	}
	verifyStorm(t, dir, c.addr, orders)
	c.stop(t)
}

// retryOf is when the server wants to be called again.
func retryOf(t *testing.T, err error) time.Duration {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration()
		}
	}
	t.Errorf("a refusal says nothing of when to come back: %v", err)
	return time.Second
}
