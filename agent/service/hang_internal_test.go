package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/config"
)

// TestSelfCheck: two answers in a row that do not come are a hang, one is none,
// and a stop is none.
func TestSelfCheck(t *testing.T) {
	lost := errors.New("no answer")
	for _, c := range []struct {
		name    string
		answers []error
		hung    bool
		after   time.Duration
	}{
		{"all is well", []error{nil, nil, nil}, false, 45 * time.Minute},
		{"a machine that woke up", []error{lost, nil, lost, nil}, false, 32 * time.Minute},
		{"a hang", []error{nil, lost, lost}, true, 31 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				asked := 0
				check := newSelfCheck(15*time.Minute, "")
				check.ask = func(context.Context) error {
					asked++
					if asked == len(c.answers) && !c.hung {
						stop()
					}
					return c.answers[asked-1]
				}
				begin := time.Now()
				if err := check.watch(ctx); errors.Is(err, errHung) != c.hung || errors.Is(err, lost) != c.hung {
					t.Errorf("it said %v", err)
				}
				if took := time.Since(begin); took != c.after {
					t.Errorf("after %v, want %v", took, c.after)
				}
				stop()
			})
		})
	}
}

// TestAnAnswerThatDoesNotCome is bounded, and a stop does not wait for it.
func TestAnAnswerThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := newSelfCheck(15*time.Minute, "")
		check.ask = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		begin := time.Now()
		if err := check.watch(t.Context()); !errors.Is(err, errHung) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it said %v", err)
		}
		if took, want := time.Since(begin), check.every+check.again+2*check.patience; took != want {
			t.Errorf("after %v, want %v", took, want)
		}
		ctx, stop := context.WithTimeout(t.Context(), check.every+time.Second)
		defer stop()
		if err := check.watch(ctx); err != nil {
			t.Errorf("stopped, it said %v", err)
		}
	})
}

// lastingDir is a folder for a service that is not waited for, and the context in
// which it runs: what is left of it may write for a moment after its end.
func lastingDir(t *testing.T) (string, context.Context) {
	t.Helper()
	dir, err := os.MkdirTemp("", "smime-hang-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		for deadline := time.Now().Add(30 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
		}
	})
	return dir, ctx
}

// TestAServiceThatHangsEnds: a real service, one of whose locks is never given
// back, ends by itself, and leaves what its goroutines did.
func TestAServiceThatHangsEnds(t *testing.T) {
	dir, ctx := lastingDir(t)
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("address: %s\nstate_dir: %s\nlog_dir: %s\n", filepath.Join(dir, "run", "agent.sock"), filepath.Join(dir, "state"), filepath.Join(dir, "logs"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := build(Options{Sources: config.Sources{File: file}, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.settings.SelfCheck = 2 * time.Second // a setting has more
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	for ask := askAt(s.settings.Address); ask(t.Context()) != nil; time.Sleep(10 * time.Millisecond) {
		if t.Context().Err() != nil {
			t.Fatal("it does not answer at all")
		}
	}
	s.mu.Lock() // as a deadlock does
	select {
	case err := <-ended:
		if !errors.Is(err, errHung) {
			t.Fatalf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it hangs on")
	}
	s.mu.Unlock()
	stacks, err := os.ReadFile(filepath.Join(dir, "logs", hangFile))
	if err != nil || !strings.Contains(string(stacks), "agent/service.(*Service)") {
		t.Errorf("%v, in %.300q", err, stacks)
	}
}
