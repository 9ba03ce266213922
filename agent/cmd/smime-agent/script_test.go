package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

// The scripts run the real command, as a process of its own, against a real
// local.Server over a real Unix socket. The service behind it is scripted, and
// so is who calls: the script's `as` stands in for the kernel.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"smime-agent": scriptedMain})
}

func scriptedMain() {
	ctx := context.Background()
	if limit, err := time.ParseDuration(os.Getenv("TEST_INTERRUPT")); err == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		if limit == 0 {
			cancel()
		}
		time.AfterFunc(limit, cancel)
	}
	e := env{
		Args: append([]string{"--address", os.Getenv("TEST_ADDRESS")}, os.Args[1:]...), Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Width: func() (int, bool) { return 0, os.Getenv("TEST_TERMINAL") != "" },
		Now: func() time.Time { return now }, Version: "1.2.3",
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		},
		User: func() (platform.User, error) {
			return platform.User{ID: os.Getenv("TEST_USER"), Locale: os.Getenv("TEST_LOCALE")}, nil
		},
		Stores: func(context.Context) ([]string, error) {
			if os.Getenv("TEST_STORES") == "locked" {
				return []string{"file"}, fmt.Errorf("open store nss:default: %w", platform.ErrLocked)
			}
			return []string{"nss:default", "file"}, nil
		},
		Keys: func(context.Context) (Held, error) { return Held{Stores: []string{"nss:default"}}, nil },
		Serve: func(_ context.Context, o ServeOptions) error {
			fmt.Printf("serving config=%s state=%s version=%s\n", o.ConfigFile, o.StateDir, o.Version)
			return nil
		},
		Control: func(_ context.Context, action ControlAction) error {
			if action == ServiceStop {
				return errors.New("the service manager refused")
			}
			fmt.Printf("control %s\n", action)
			return nil
		},
	}
	os.Exit(exitCode(run(ctx, e)))
}

var now = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

// company is the scripted service of one script.
type company struct {
	mu    sync.Mutex
	peer  platform.Peer
	facts status.Facts
	all   []enroll.Enrollment
	told  []string
	err   error
	wake  []chan struct{}
	stop  func()
}

func enrollment(id, user, mailbox string, s enroll.State) enroll.Enrollment {
	e := enroll.Enrollment{
		ID: enroll.ID(id), Store: "nss:default", State: s, Reason: enroll.ReasonFirst,
		Assignment: enroll.Assignment{User: user, Mailboxes: []string{mailbox}, Profile: enroll.Profile{Name: "smime"}},
	}
	switch s {
	case enroll.Active:
		e.NotAfter, e.RenewAt, e.Protection = now.AddDate(1, 0, 0), now.AddDate(0, 10, 0), "software"
		e.Proof = &enroll.Proof{At: now, Signs: true, Decrypts: true, ChainOK: true}
	case enroll.Wanted:
		e.Problem = &enroll.Problem{Kind: enroll.Waiting, Code: enroll.CodeConsentPending, Since: now}
	case enroll.Consented, enroll.Requested, enroll.Submitted, enroll.Issued, enroll.Installed, enroll.Prepared, enroll.Kept:
	case enroll.Over:
		e.Problem = &enroll.Problem{Kind: enroll.Final, Code: enroll.CodeRequestRefused, Since: now, Hint: "No such mailbox."}
	}
	return e
}

func newCompany() *company {
	return &company{
		peer: platform.Peer{User: "uid:1000"},
		facts: status.Facts{
			Version: "1.2.3", Started: now.Add(-time.Hour), Assigned: []string{"uid:1000", "uid:1001"},
			Organization: status.Organization{Name: "Contoso", Contact: "it@corp.example"},
			Users:        []status.User{{ID: "uid:1000", Account: "ann", Helper: "smime-helper/1.2.3"}, {ID: "uid:1001", Account: "bob"}},
			Device: status.Device{
				ID: "d1", Name: "laptop7", Joined: true, IdentityFrom: now.AddDate(0, 0, -3), IdentityEnds: now.AddDate(0, 0, 27),
				Server: "control.corp.example:443", PolicyRevision: "7", LastContact: now,
			},
		},
		all: []enroll.Enrollment{
			enrollment("smime-01", "uid:1000", "ann@corp.example", enroll.Active),
			enrollment("smime-02", "uid:1000", "sales@corp.example", enroll.Wanted),
			enrollment("smime-03", "uid:1001", "bob@corp.example", enroll.Over),
		},
	}
}

func (c *company) Report(context.Context) (status.Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return status.Build(c.facts, c.all, now), c.err
}

func (c *company) Changes(context.Context) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{}, 1)
	c.wake = append(c.wake, ch)
	return ch
}

func (c *company) did(what string, ids []enroll.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.told = append(c.told, what+" "+string(id))
	}
	return c.err
}

func (c *company) Decide(_ context.Context, by platform.Peer, ids []enroll.ID, v enroll.Verdict) error {
	return c.did(by.User+" "+string(v), ids)
}

func (c *company) Renew(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return c.did(by.User+" renew", ids)
}

func (c *company) Confirm(_ context.Context, _ platform.Peer, ids []enroll.ID, code string) error {
	return c.did("confirm "+code, ids)
}

func (c *company) Prove(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return c.did(by.User+" prove", ids)
}

func (c *company) UndoMail(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return c.did(by.User+" undo", ids)
}

func (c *company) ApplyMail(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return c.did(by.User+" apply", ids)
}

func (c *company) Sync(context.Context) error { return c.did("sync", []enroll.ID{"now"}) }

func (c *company) Diagnose(context.Context) (status.Checks, error) {
	return status.Checks{Checks: []status.Check{{Name: "record", OK: true, Detail: "1 MB"}}}, c.err
}

func (c *company) Settings(context.Context) (status.Settings, error) {
	return status.Settings{Settings: []status.Setting{
		{Name: "server", Value: "control.corp.example:443", Source: "policy"},
		{Name: "join-token", Value: "geheim", Source: "file", Secret: true},
	}}, nil
}

func (c *company) MailChecked(_ context.Context, m enroll.MailCheck) error {
	return c.did(fmt.Sprintf("%s mail %d/%d keys %d", m.User, m.Opened, m.Encrypted, len(m.Keys)), []enroll.ID{"-"})
}
func (c *company) Attached(local.Attachment) {}
func (c *company) Changed(local.Attachment)  {}
func (c *company) Detached(local.Attachment) {}

func (c *company) peerOf(net.Conn) (platform.Peer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer, nil
}

type companyKey struct{}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// A socket's path has about a hundred bytes; the scripts' folder is longer.
			dir, err := os.MkdirTemp("", "cli")
			if err != nil {
				return err
			}
			address := filepath.Join(dir, "a.sock")
			l, err := net.Listen("unix", address)
			if err != nil {
				return err
			}
			c := newCompany()
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			s := &local.Server{Agent: c, PeerOf: c.peerOf, Log: slog.New(slog.DiscardHandler)}
			go func() { ended <- s.Serve(ctx, l) }()
			c.stop = sync.OnceFunc(func() {
				cancel()
				<-ended
			})
			e.Defer(func() {
				c.stop()
				_ = os.RemoveAll(dir)
			})
			e.Values[companyKey{}] = c
			e.Vars = append(e.Vars, "TEST_ADDRESS="+address, "TEST_USER=uid:1000", "TZ=UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"as": scriptAs, "told": scriptTold, "service": scriptService, "exit": scriptExit,
		},
	})
}

// scriptAs: as uid:1000 [admin]
func scriptAs(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(companyKey{}).(*company)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer = platform.Peer{User: args[0], Admin: len(args) > 1}
	ts.Setenv("TEST_USER", args[0])
}

// scriptTold: told 'uid:1000 renew smime-01' … compares what the service was
// told since the last time, and nothing else.
func scriptTold(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(companyKey{}).(*company)
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := strings.Join(c.told, "\n"); got != strings.Join(args, "\n") {
		ts.Fatalf("the service was told %q", c.told)
	}
	c.told = nil
}

// scriptService: service stop|fail|hint|rule|unjoin|over ID|ended ID
func scriptService(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(companyKey{}).(*company)
	if args[0] == "stop" {
		c.stop()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch args[0] {
	case "fail":
		c.err = errors.New("planted")
	case "hint":
		c.err = &enroll.Error{Kind: enroll.Transient, Code: enroll.CodeControlUnreachable, Hint: "No answer from central. Check the network."}
	case "wrongcode":
		c.err = &enroll.Error{Kind: enroll.Waiting, Code: enroll.CodeChallengePending, Hint: "The code is not the one that was mailed last."}
	case "rule":
		c.err = &local.Error{Reason: local.ReasonRuled}
	case "unjoin":
		c.facts.Device = status.Device{}
	case "well":
		c.all, c.facts.Raised = c.all[:1], nil
	case "ended":
		c.all[0].NotAfter = now
	case "warn":
		c.facts.Raised = []status.Raised{{Code: status.SettingsInvalid, Detail: "sync-interval: not a duration"}}
	default:
		ts.Fatalf("no such thing: %s", args[0])
	}
	for _, ch := range c.wake {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// scriptExit: exit CODE command… runs a command and compares its exit code.
func scriptExit(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		code = fmt.Sprint(e.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}
