package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/config"
	"smime-agent/agent/local"
	"smime-agent/agent/status"
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

// hanging is a real service that a test hangs.
type hanging struct {
	*Service
	address, logDir string // as it started: it may read its settings anew
	ended           <-chan error
}

// started runs a service that asks itself that often, and waits until it answers.
func started(t *testing.T, selfCheck time.Duration) hanging {
	t.Helper()
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
	s.settings.SelfCheck = selfCheck // a setting has more than some tests want
	ended := make(chan error, 1)
	h := hanging{s, s.settings.Address, s.settings.LogDir, ended}
	go func() { ended <- s.run(ctx) }()
	if err := askAt(h.address)(t.Context()); err != nil {
		t.Fatal("it does not answer at all: ", err)
	}
	return h
}

// TestAServiceThatHangsEnds: a real service, one of whose locks is never given
// back, ends by itself, and leaves what its goroutines did.
func TestAServiceThatHangsEnds(t *testing.T) {
	s := started(t, 2*time.Second)
	s.mu.Lock() // as a deadlock does
	select {
	case err := <-s.ended:
		if !errors.Is(err, errHung) {
			t.Fatalf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it hangs on")
	}
	s.mu.Unlock()
	stacks, err := os.ReadFile(filepath.Join(s.logDir, hangFile))
	if err != nil || !strings.Contains(string(stacks), "agent/service.(*Service)") {
		t.Errorf("%v, in %.300q", err, stacks)
	}
}

// The test's program is also another one of the same account.
const floodEnv = "SMIME_TEST_FLOOD_ADDRESS"

func TestMain(m *testing.M) {
	address := os.Getenv(floodEnv)
	if address == "" {
		os.Exit(m.Run())
	}
	if err := flood(address); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// flooded is what [flood] says when its account has no place left.
const flooded = "every place is taken"

// flood takes all connections of its account, and with them all calls, and keeps
// them until its input ends.
func flood(address string) error {
	var first *local.Client
	for {
		c, err := local.Dial(context.Background(), address)
		if err != nil {
			return err
		}
		if err = follow(c); reasonOf(err) == local.ReasonNotRunning && first != nil {
			break // turned away at the door
		}
		if err != nil {
			return err
		}
		if first == nil {
			first = c
		}
	}
	if _, err := first.Status(context.Background()); reasonOf(err) != local.ReasonTooMany {
		return fmt.Errorf("with all connections taken, a call got %w", err)
	}
	fmt.Println(flooded)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// follow keeps a call open for good. It waits while there were too many a second.
func follow(c *local.Client) error {
	for {
		seen, ended := make(chan struct{}), make(chan error, 1)
		once := sync.OnceFunc(func() { close(seen) })
		go func() {
			ended <- c.Watch(context.Background(), func(status.Report) error { once(); return nil })
		}()
		select {
		case <-seen:
			return nil
		case err := <-ended:
			if reasonOf(err) != local.ReasonTooMany {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func reasonOf(err error) local.Reason {
	if e, ok := errors.AsType[*local.Error](err); ok {
		return e.Reason
	}
	return ""
}

// floodOfItsOwnAccount leaves the service's account no place, until the test ends.
func floodOfItsOwnAccount(t *testing.T, address string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command(self)
	other.Env = append(os.Environ(), floodEnv+"="+address)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = other.Wait()
	})
	if said, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(said) != flooded {
		t.Fatalf("the flood: %q, %v", said, err)
	}
}

// TestSelfCheckInAFloodOfTheSameAccount: other programs of the service's account
// have all its connections and calls. The service still hears itself, and still
// notices that one of its locks is never given back.
func TestSelfCheckInAFloodOfTheSameAccount(t *testing.T) {
	s := started(t, time.Hour)
	floodOfItsOwnAccount(t, s.address)
	if err := askAt(s.address)(patiently(t)); err != nil {
		t.Errorf("all is well, and it said %v", err)
	}
	check := newSelfCheck(2*time.Second, s.address)
	check.every, check.again = time.Millisecond, time.Millisecond
	s.mu.Lock() // as a deadlock does
	err := check.watch(patiently(t))
	s.mu.Unlock()
	if !errors.Is(err, errHung) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("in a hang it said %v", err)
	}
}

func patiently(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
