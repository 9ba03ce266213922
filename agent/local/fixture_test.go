package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

var moment = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

// scripted is an Agent with a fixed report that remembers what it was told.
type scripted struct {
	mu       sync.Mutex
	report   status.Report
	watchers []chan struct{}
	moved    []string
	err      error
	broken   bool
	attached chan Attachment
	detached chan Attachment
	changed  chan Attachment
}

func newScripted() *scripted {
	credential := func(id, user, mailbox string, s enroll.State) status.Credential {
		return status.Credential{ID: enroll.ID(id), User: user, Mailbox: mailbox, Mailboxes: []string{mailbox, "alias." + mailbox}, State: s}
	}
	return &scripted{
		report: status.Report{
			Version: "1.0.0", At: moment,
			Users: []status.User{{ID: "uid:1000", Account: "ann"}, {ID: "uid:1001", Account: "bob"}},
			Credentials: []status.Credential{
				credential("smime-a1", "uid:1000", "ann@corp.example", enroll.Wanted),
				credential("smime-a2", "uid:1000", "sales@corp.example", enroll.Active),
				credential("smime-a3", "uid:1000", "old@corp.example", enroll.Kept),
				credential("smime-b1", "uid:1001", "bob@corp.example", enroll.Wanted),
				credential("smime-b2", "uid:1001", "shared@corp.example", enroll.Active),
			},
			Conditions: []status.Condition{
				{Code: status.SettingsInvalid, Severity: status.Warning},
				{Code: enroll.CodeConsentPending, Severity: status.Info, User: "uid:1001", Mailbox: "bob@corp.example"},
			},
		},
		attached: make(chan Attachment, 64), detached: make(chan Attachment, 64), changed: make(chan Attachment, 64),
	}
}

func (a *scripted) Report(context.Context) (status.Report, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken {
		panic("planted")
	}
	return a.report, a.err
}

func (a *scripted) Changes(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers = append(a.watchers, c)
	return c
}

func (a *scripted) change(f func(*status.Report)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.report)
	for _, c := range a.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (a *scripted) did(verb string, by platform.Peer, ids []enroll.ID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		a.moved = append(a.moved, by.User+" "+verb+" "+string(id))
	}
	return a.err
}

func (a *scripted) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.moved
	a.moved = nil
	slices.Sort(m)
	return m
}

func (a *scripted) Decide(_ context.Context, by platform.Peer, ids []enroll.ID, v enroll.Verdict) error {
	return a.did(string(v), by, ids)
}

func (a *scripted) Renew(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return a.did("renew", by, ids)
}

func (a *scripted) Confirm(_ context.Context, by platform.Peer, ids []enroll.ID, code string) error {
	return a.did("confirm "+code, by, ids)
}

func (a *scripted) Prove(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return a.did("prove", by, ids)
}

func (a *scripted) UndoMail(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return a.did("undo", by, ids)
}

func (a *scripted) ApplyMail(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	return a.did("apply", by, ids)
}

func (a *scripted) Sync(context.Context) error {
	return a.did("sync", platform.Peer{}, []enroll.ID{"-"})
}

func (a *scripted) Diagnose(context.Context) (status.Checks, error) {
	return status.Checks{Checks: []status.Check{{Name: "disk", OK: true}}}, nil
}

func (a *scripted) Settings(context.Context) (status.Settings, error) {
	return status.Settings{Settings: []status.Setting{
		{Name: "server", Value: "control.corp.example", Source: "policy"},
		{Name: "join-token", Value: "geheim", Source: "file", Secret: true},
		{Name: "proxy-user", Value: "svc", Source: "file", Private: true, Problem: "svc is wrong"},
	}}, nil
}

func (a *scripted) MailChecked(_ context.Context, c enroll.MailCheck) error {
	return a.did(fmt.Sprintf("mail %s %d/%d %v", c.Path, c.Opened, c.Encrypted, c.Keys), platform.Peer{User: c.User}, []enroll.ID{"-"})
}

func (a *scripted) Attached(x Attachment) { a.attached <- x }
func (a *scripted) Changed(x Attachment)  { a.changed <- x }
func (a *scripted) Detached(x Attachment) { a.detached <- x }

// house is a server on a real Unix socket. Who a caller is stands in the name of
// the socket that he binds his own end to: the tests' stand-in for the kernel.
type house struct {
	t        testing.TB
	agent    *scripted
	sessions *Sessions
	address  string
	dir      string
	stop     func()
}

func nobody(net.Conn) (platform.Peer, error) { return platform.Peer{}, platform.ErrDenied }

func byName(c net.Conn) (platform.Peer, error) {
	name, _, ok := strings.Cut(filepath.Base(c.RemoteAddr().String()), "-")
	if !ok {
		return platform.Peer{}, platform.ErrDenied
	}
	return platform.Peer{User: "uid:" + name, Admin: name == "0"}, nil
}

func open(t testing.TB, change func(*Server)) *house {
	t.Helper()
	h := &house{t: t, agent: newScripted(), sessions: &Sessions{}, dir: t.TempDir()}
	h.address = filepath.Join(h.dir, "a.sock")
	l, err := net.Listen("unix", h.address)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Agent: h.agent, Sessions: h.sessions, PeerOf: byName, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the server does not stop")
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *house) dialer(uid string) Dialer {
	return Dialer{Address: h.address, Dial: func(ctx context.Context, address string) (net.Conn, error) {
		return h.dial(ctx, uid, address)
	}}
}

func (h *house) dial(ctx context.Context, uid, address string) (net.Conn, error) {
	var suffix [6]byte
	_, _ = rand.Read(suffix[:])
	name := filepath.Join(h.dir, uid+"-"+hex.EncodeToString(suffix[:]))
	d := net.Dialer{LocalAddr: &net.UnixAddr{Name: name, Net: "unix"}}
	return d.DialContext(ctx, "unix", address)
}

func (h *house) client(uid string) *Client {
	h.t.Helper()
	c, err := h.dialer(uid).Connect(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// lend attaches a session and waits until the service has it.
func (h *house) lend(uid string, s enroll.Session) (remote enroll.Session, end func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	c := h.client(uid)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Attach(ctx, Lending{Hello: Hello{Version: "smime-helper/1", Locale: "en"}, Session: s})
	}()
	select {
	case a := <-h.agent.attached:
		return a.Session, func() {
			cancel()
			<-ended
		}
	case err := <-ended:
		h.t.Fatal("attach ended: ", err)
	case <-time.After(time.Minute):
		h.t.Fatal("not attached")
	}
	cancel()
	return nil, nil
}

func reasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}
