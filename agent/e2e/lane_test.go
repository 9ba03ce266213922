//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
	"smime-agent/agent/status"
)

// lane is a company whose processes are killed again and again. What was shown
// of any enrollment, and what the ledger once had, must never be taken back.
type lane struct {
	*world
	random    *rand.Rand
	store     string
	slow      bool
	mailboxes []string
	used      map[string]int
	helper    *e2e.Process
	follower  *follower
	// certificates are the serials that the ledger had, by enrollment.
	certificates map[string]string
}

// usesOfMailbox stays under the engine's limit of enrollments for one slot a day.
const usesOfMailbox = 5

// newLane opens a company. On a slow wire every resting place lasts long enough
// to be seen, and to be hit: between the processes each message takes its time.
func newLane(t *testing.T, store string, slow bool, kills int, random *rand.Rand) *lane {
	t.Helper()
	l := &lane{random: random, store: store, slow: slow, used: map[string]int{}, certificates: map[string]string{}}
	for i := range kills/(usesOfMailbox-1) + 2 {
		l.mailboxes = append(l.mailboxes, fmt.Sprintf("box%02d@example.com", i))
	}
	l.world = company(t, func(w *e2e.World) {
		w.Profile, w.Stores, w.Consent = "employee-dual", []string{store}, "ask"
		account := w.Employees[0].Account
		w.Employees = nil
		for _, m := range l.mailboxes {
			w.Employees = append(w.Employees, e2e.Employee{Account: account, Mailbox: m, Given: "Alice", Surname: "Example"})
		}
	})
	l.database(enrollment{store: store})
	l.openLane()
	l.helper = l.login(l.session())
	l.follow()
	t.Cleanup(func() { l.follower.stop() })
	l.until("all questions", func(r status.Report) bool {
		waiting := 0
		for _, c := range r.Credentials {
			if c.State == enroll.Wanted && c.Store != "" {
				waiting++
			}
		}
		return waiting == len(l.mailboxes)
	})
	return l
}

func (l *lane) openLane() {
	l.t.Helper()
	if !l.slow {
		l.open()
		return
	}
	ctx := l.within()
	l.must(l.Founded(ctx))
	l.must(l.StartServer(ctx))
	l.must(l.WriteSettings(ctx)) // for the token that it makes
	token, err := os.ReadFile(filepath.Join(l.Dir, "agent", "token"))
	l.must(err)
	server := slowWire(l.t, serverTime, "tcp", l.Host+":0", l.ServerAddress())
	l.must(l.WriteSettingsFor(server, filepath.Join(l.Dir, "central", "transport", "ca.crt"), strings.TrimSpace(string(token))))
	l.must(l.StartAgent(ctx))
	l.must(os.MkdirAll(filepath.Join(l.Dir, "wire"), 0o755))
	slowWire(l.t, helperTime, "unix", l.session().Address, l.Address())
}

// session is how the lane's helper reaches the service.
func (l *lane) session() e2e.HelperOptions {
	if !l.slow {
		return e2e.HelperOptions{}
	}
	return e2e.HelperOptions{Address: filepath.Join(l.Dir, "wire", "agent.sock")}
}

// How long a message is on a slow wire.
const (
	helperTime = 8 * time.Millisecond
	serverTime = 25 * time.Millisecond
)

// slowWire passes on what comes at one address to another, late. The kernel
// names this process to the service as the peer, which is the same user.
func slowWire(t *testing.T, late time.Duration, network, from, to string) string {
	t.Helper()
	listener, err := net.Listen(network, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial(network, to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go pass(near, far, late)
			go pass(far, near, late)
		}
	}()
	return listener.Addr().String()
}

func pass(from, to net.Conn, late time.Duration) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		time.Sleep(late)
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

// follower reads `smime-agent status --watch --json`.
type follower struct {
	cmd  *exec.Cmd
	wake chan struct{}

	mu     sync.Mutex
	last   status.Report
	any    bool
	ended  bool
	shown  map[enroll.ID]enroll.State
	broken []string
	// armed is told of each report at once, until it says that it has fired.
	armed func(status.Report) bool
	// whole says that no process is down; then I5 holds of every report.
	whole bool
	// farthest is the longest wait for a next attempt that was announced meanwhile.
	farthest time.Duration
}

// upAgain says whether every process is there, so that the agent has to heal by itself.
func (f *follower) upAgain(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = yes
}

func (f *follower) waited() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.farthest
}

// oneCap is the longest that the engine lets anything wait with the worlds'
// retry_cap of a second: its floor between two tries of one step (enroll.Timing).
const oneCap = 10 * time.Second

// heals says what in a report, made while every process is there, contradicts
// I5: something that is under way and tries again only after more than one cap,
// never, or when a person does something that nobody has asked him for.
func heals(r status.Report) (broken []string, farthest time.Duration) {
	for _, c := range r.Credentials {
		if c.State == enroll.Over || rank(c.State) <= rank(enroll.Wanted) || rank(c.State) >= rank(enroll.Active) && c.Problem == nil {
			continue // it waits for nothing, or for the answer to its question
		}
		wait := c.NextAttempt.Sub(r.At)
		switch {
		case c.Problem != nil && c.Problem.Code == enroll.CodeUserAbsent: // the helper is on its way, and wakes it
		case c.Problem != nil && c.Problem.Kind != enroll.Transient:
			broken = append(broken, fmt.Sprintf("I5: %s in %s waits for a person: %+v", c.ID, c.State, *c.Problem))
		case c.Problem != nil && c.NextAttempt.IsZero() || wait > oneCap:
			broken = append(broken, fmt.Sprintf("I5: %s in %s tries again in %v: %+v", c.ID, c.State, wait, c.Problem))
		default:
			farthest = max(farthest, wait)
		}
	}
	return broken, farthest
}

// TestHeals plants what I5 forbids: a check that cannot fail checks nothing.
func TestHeals(t *testing.T) {
	at := time.Now()
	credential := func(kind enroll.Kind, code enroll.Code, next time.Duration) status.Report {
		c := status.Credential{ID: "smime-1", State: enroll.Submitted, Problem: &status.Problem{Kind: kind, Code: code}}
		if next != 0 {
			c.NextAttempt = at.Add(next)
		}
		return status.Report{At: at, Credentials: []status.Credential{c}}
	}
	for _, bad := range []status.Report{
		credential(enroll.Transient, enroll.CodeControlUnreachable, time.Minute), credential(enroll.Transient, enroll.CodeStoreFailed, 0),
		credential(enroll.Waiting, enroll.CodeStoreLocked, time.Second),
	} {
		if broken, _ := heals(bad); len(broken) != 1 {
			t.Errorf("%+v went through", bad.Credentials[0])
		}
	}
	for _, good := range []status.Report{
		credential(enroll.Transient, enroll.CodeControlUnreachable, oneCap), credential(enroll.Waiting, enroll.CodeUserAbsent, 0), {At: at},
	} {
		if broken, _ := heals(good); len(broken) != 0 {
			t.Error(broken)
		}
	}
}

// arm sets what is told of each report from now on.
func (f *follower) arm(fire func(status.Report) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = fire
}

// follow begins to watch; what was shown before is not forgotten.
func (l *lane) follow() {
	l.t.Helper()
	f := &follower{wake: make(chan struct{}, 1), shown: map[enroll.ID]enroll.State{}}
	if old := l.follower; old != nil {
		old.stop()
		f.shown, f.broken, f.whole, f.farthest = old.shown, old.broken, old.whole, old.farthest
	}
	f.cmd = l.Command(l.t.Context(), "smime-agent", "status", "--watch", "--json", "--address", l.Address())
	out, err := f.cmd.StdoutPipe()
	l.must(err)
	l.must(f.cmd.Start())
	go f.read(bufio.NewReaderSize(out, 1<<16))
	l.follower = f
}

func (f *follower) stop() {
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait()
}

func (f *follower) read(in *bufio.Reader) {
	lines := json.NewDecoder(in)
	for {
		var r status.Report
		err := lines.Decode(&r)
		f.mu.Lock()
		if err != nil {
			f.ended = true
		} else {
			f.last, f.any = r, true
			if f.armed != nil && f.armed(r) {
				f.armed = nil
			}
			f.compare(r)
			if broken, farthest := heals(r); f.whole {
				f.broken, f.farthest = append(f.broken, broken...), max(f.farthest, farthest)
			}
		}
		f.mu.Unlock()
		select {
		case f.wake <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// order of the states; what was shown once is never taken back.
var order = []enroll.State{
	enroll.Wanted, enroll.Consented, enroll.Requested, enroll.Submitted, enroll.Issued, enroll.Installed, enroll.Prepared, enroll.Active, enroll.Kept, enroll.Over,
}

func rank(s enroll.State) int { return slices.Index(order, s) }

func (f *follower) compare(r status.Report) {
	there := map[enroll.ID]bool{}
	for _, c := range r.Credentials {
		there[c.ID] = true
		before, known := f.shown[c.ID]
		if known && rank(c.State) < rank(before) {
			f.broken = append(f.broken, fmt.Sprintf("I1: %s was %s and is %s", c.ID, before, c.State))
		}
		if c.State == enroll.Over {
			f.broken = append(f.broken, fmt.Sprintf("I1: %s ended without a certificate (%+v)", c.ID, c.Problem))
		}
		f.shown[c.ID] = c.State
	}
	for id, s := range f.shown {
		if !there[id] {
			f.broken = append(f.broken, fmt.Sprintf("I1: %s, which was %s, is gone", id, s))
		}
	}
}

func (f *follower) now() (r status.Report, ok, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.any, f.ended
}

// until waits for what the follower shows, following anew when the service went.
func (l *lane) until(what string, want func(status.Report) bool) status.Report {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		r, ok, ended := l.follower.now()
		if ok && want(r) {
			return r
		}
		if ended {
			l.follow()
		}
		select {
		case <-l.follower.wake:
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			raw, _ := json.MarshalIndent(r, "", " ")
			l.t.Fatalf("%s did not come; last status: %s", what, raw)
		}
	}
}

// onRecord reads the state of an enrollment in the record of a service that was
// killed, from a copy.
func (l *lane) onRecord(mailbox string) string {
	l.t.Helper()
	raw, err := os.ReadFile(filepath.Join(l.Dir, "agent", "state", "agent.db"))
	l.must(err)
	path := filepath.Join(l.t.TempDir(), "copy.db")
	l.must(os.WriteFile(path, raw, 0o600))
	db, opened, err := state.Open(path, state.Options{Now: time.Now})
	l.must(err)
	if opened.Damaged {
		l.t.Errorf("I1: the record is damaged after a kill: %s", opened.Cause)
	}
	defer func() { _ = db.Close() }()
	all, err := db.Load()
	l.must(err)
	found := "nothing"
	for _, e := range all { // oldest first
		if e.Mailbox() == mailbox {
			found = string(e.State)
		}
	}
	return found
}

// newest gives a mailbox's newest credential.
func newest(r status.Report, mailbox string) (c status.Credential, ok bool) {
	for _, x := range r.Credentials {
		if x.Mailbox == mailbox && x.ID > c.ID {
			c, ok = x, true
		}
	}
	return c, ok
}

// settled says that nothing is on its way for a mailbox.
func settled(mailbox string) func(status.Report) bool {
	return func(r status.Report) bool {
		c, ok := newest(r, mailbox)
		return ok && c.State == enroll.Active && len(r.Users) > 0 && r.Device.Joined
	}
}

// keepLedger compares the ledger with what it had before.
func (l *lane) keepLedger() {
	l.t.Helper()
	now := map[string]string{}
	for _, e := range l.ledger() {
		now[e.Enrollment] = e.Serial
	}
	for enrollment, serial := range l.certificates {
		if now[enrollment] != serial {
			l.t.Errorf("I1: the ledger had %s for %s and has %q", serial, enrollment, now[enrollment])
		}
	}
	l.certificates = now
}

// report says what the follower found broken.
func (l *lane) broken() string {
	l.follower.mu.Lock()
	defer l.follower.mu.Unlock()
	return strings.Join(l.follower.broken, "\n")
}
