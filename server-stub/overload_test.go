package main

import (
	"context"
	"os"
	"path/filepath"
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
