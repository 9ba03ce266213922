package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

// execute runs a service as the service manager does, and gives it requests.
func execute(t *testing.T, run func(context.Context) error, requests ...svc.Cmd) (states []svc.State, died bool, code uint32, failed error) {
	t.Helper()
	m := &managed{ctx: t.Context(), run: run, patience: time.Minute, die: func(int) { died = true }}
	in, out := make(chan svc.ChangeRequest, len(requests)), make(chan svc.Status, 10)
	for _, r := range requests {
		in <- svc.ChangeRequest{Cmd: r, CurrentStatus: svc.Status{State: svc.Running}}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, code = m.Execute(nil, in, out)
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
	return states, died, code, m.failed
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

// TestManagedStopsBadly: an exit code would have the service manager start again
// what somebody has stopped.
func TestManagedStopsBadly(t *testing.T) {
	broken := errors.New("broken")
	_, died, code, failed := execute(t, func(ctx context.Context) error { <-ctx.Done(); return broken }, svc.Stop)
	if died || code != 0 || !errors.Is(failed, broken) {
		t.Errorf("%t, %d, %v", died, code, failed)
	}
}

// TestManagedDoesNotStop: what hangs does not keep the service in its stop for ever.
func TestManagedDoesNotStop(t *testing.T) {
	let := make(chan struct{})
	defer close(let)
	m := &managed{ctx: t.Context(), run: func(context.Context) error { <-let; return nil }, patience: time.Millisecond, die: os.Exit}
	in, out := make(chan svc.ChangeRequest, 2), make(chan svc.Status, 10)
	in <- svc.ChangeRequest{Cmd: svc.Stop}
	in <- svc.ChangeRequest{Cmd: svc.Shutdown}
	if _, code := m.Execute(nil, in, out); code != 0 || !errors.Is(m.failed, errOverdue) {
		t.Errorf("%d, %v", code, m.failed)
	}
}

// TestManagedFails: an error must count as a failure, or nobody starts the
// service again; an exit code does not before the system was started anew.
func TestManagedFails(t *testing.T) {
	broken := errors.New("broken")
	_, died, code, failed := execute(t, func(context.Context) error { return broken })
	if !died || code == 0 || !errors.Is(failed, broken) {
		t.Errorf("%t, %d, %v", died, code, failed)
	}
	_, died, code, failed = execute(t, func(context.Context) error { return context.Canceled })
	if !died || code == 0 || failed == nil { // nobody canceled it
		t.Errorf("canceled by itself: %t, %d, %v", died, code, failed)
	}
	_, died, code, failed = execute(t, func(context.Context) error { return nil })
	if died || code != 0 || failed != nil {
		t.Errorf("done: %t, %d, %v", died, code, failed)
	}
}

const logoffEnv = "SMIME_TEST_LOGOFF"

// TestSomebodyLogsOff: the system calls the handlers of a process, as it does when
// a user logs off, and a service does not stop for that.
func TestSomebodyLogsOff(t *testing.T) {
	if as := os.Getenv(logoffEnv); as != "" {
		logoff(t.Context(), as)
		return
	}
	if ctrlRoutine.Find() != nil {
		t.Skip("SKIP: this system does not let its call be made")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for as, want := range map[string]bool{"a program": true, "a service": false} {
		child := exec.CommandContext(t.Context(), self, "-test.run=^TestSomebodyLogsOff$")
		child.Env = append(os.Environ(), logoffEnv+"="+as)
		said, err := child.Output() // the system ends whoever has no handler, if it is no service
		if got := strings.Contains(string(said), stopping); got != want || strings.Contains(string(said), nothing) {
			t.Errorf("%s: %q, %v", as, said, err)
		}
	}
}

const stopping, nothing = "it stops", "nothing happened"

var ctrlRoutine = windows.NewLazySystemDLL("kernelbase.dll").NewProc("CtrlRoutine")

func logoff(ctx context.Context, as string) {
	ctx, cancel := signal.NotifyContext(ctx, StopSignals()...)
	defer cancel()
	if as == "a service" {
		heedNoConsole()
	}
	go func() { _, _, _ = ctrlRoutine.Call(windows.CTRL_LOGOFF_EVENT) }()
	select {
	case <-ctx.Done():
		fmt.Println(stopping)
	case <-time.After(time.Minute):
		fmt.Println(nothing)
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
