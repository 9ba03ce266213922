package platform

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/windows/svc"
)

// execute runs a service as the service manager does, and gives it requests.
func execute(t *testing.T, run func(context.Context) error, requests ...svc.Cmd) (states []svc.State, own bool, code uint32, failed error) {
	t.Helper()
	m := &managed{ctx: t.Context(), run: run}
	in, out := make(chan svc.ChangeRequest, len(requests)), make(chan svc.Status, 10)
	for _, r := range requests {
		in <- svc.ChangeRequest{Cmd: r, CurrentStatus: svc.Status{State: svc.Running}}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		own, code = m.Execute(nil, in, out)
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the service does not end")
	}
	close(out)
	for s := range out {
		states = append(states, s.State)
	}
	return states, own, code, m.failed
}

func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestManagedStops(t *testing.T) {
	for _, request := range []svc.Cmd{svc.Stop, svc.Shutdown, svc.PreShutdown} {
		states, _, code, failed := execute(t, untilStopped, svc.Interrogate, request)
		if code != 0 || failed != nil || len(states) < 3 || states[0] != svc.Running || states[len(states)-1] != svc.StopPending {
			t.Errorf("%d: %v, %d, %v", request, states, code, failed)
		}
	}
}

// TestManagedFails: an error must count as a failure, or nobody starts the
// service again.
func TestManagedFails(t *testing.T) {
	broken := errors.New("broken")
	_, own, code, failed := execute(t, func(context.Context) error { return broken })
	if !own || code == 0 || !errors.Is(failed, broken) {
		t.Errorf("%t, %d, %v", own, code, failed)
	}
	_, _, code, failed = execute(t, func(context.Context) error { return context.Canceled })
	if code == 0 || failed == nil { // nobody canceled it
		t.Errorf("canceled by itself: %d, %v", code, failed)
	}
	_, _, code, failed = execute(t, func(context.Context) error { return nil })
	if code != 0 || failed != nil {
		t.Errorf("done: %d, %v", code, failed)
	}
}

func TestServiceState(t *testing.T) {
	const name = "smime-agent-that-is-not-there"
	if got, err := ServiceState(name); err != nil || got != "not installed" {
		t.Errorf("%q, %v", got, err)
	}
	if err := PrepareService(name); !errors.Is(err, ErrNotFound) {
		t.Errorf("prepare: %v, want ErrNotFound", err)
	}
}
