package enroll

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrNoneFits says that no enrollment fits what was asked for.
var ErrNoneFits = errors.New("no enrollment fits")

// ErrNotLoaded says that the ledger was not read; without it nothing is done.
var ErrNotLoaded = errors.New("ledger not loaded")

// Engine brings every enrollment to its goal, one step at a time: each step has
// one outside effect, can be repeated, and is saved before the next one.
//
// Fill the exported fields, call [Engine.Load], then [Engine.Run]. All other
// methods may be called from any goroutine at any time after Load. What the
// engine calls must not call the engine before it has returned; Sessions and
// Ledger are called with the engine's lock held and must not block for long.
type Engine struct {
	Ledger    Ledger
	Sessions  Sessions
	Authority Authority
	// Now is the best known time, corrected by the server's where that is known.
	Now func() time.Time
	// Random is for jitter and names; nil means crypto/rand.
	Random io.Reader
	Log    *slog.Logger
	Timing Timing
	Limits Limits
	// Rebuilding says that the record was lost, or is an older one: nothing is
	// started, carried on, adopted or discarded before [Engine.Restore] brought what central management knows.
	// Set it before Load only.
	Rebuilding bool

	mu        sync.Mutex
	loaded    bool
	byID      map[ID]*entry
	order     []*entry // by ID, which is by age
	policy    Policy
	hasPolicy bool
	users     map[string]*user
	held      map[string]bool // locks of jobs in flight
	gate      gate
	strangers map[ID]*stranger
	dirty     bool
	planned   time.Time
	started   map[slot][]time.Time // when enrollments began, of the last day
	told      map[ID]NoticeCode
	notices   []notice
	changes   chan struct{}

	inbox    sync.Mutex // guards attached; never held with another lock wanted
	attached map[string]bool
	wake     chan struct{}
	flights  sync.WaitGroup
}

// entry is an enrollment with what is known of it in memory only. Its Enrollment
// is replaced as a whole and never changed through its pointers.
type entry struct {
	e    Enrollment
	busy bool
	// outdated says that policy spoke of it while it was busy.
	outdated bool
	asking   context.CancelFunc // set while a prompt is open
	decided  bool               // a verdict came from elsewhere while it was open
	woken    bool
	tried    time.Time
	triedIn  State
	missing  bool // the key is not in its readable store
	bare     bool // the key is there without its certificate
	// received is a chain that failed a check which may pass later; it is looked
	// at again without another request, for a day.
	received Collection
	asked    time.Time
	calls    int
	callsDay time.Time
	// believed is the chain that came, with what it was held against.
	believed belief
}

// Load reads the ledger. It must succeed once before anything else.
func (g *Engine) Load() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	all, err := g.Ledger.Load()
	if err != nil {
		return &Error{
			Kind: Transient, Code: CodeRecordFailed, Err: err,
			Hint: "The agent's record cannot be read. Check the disk and the rights of the agent's data folder.",
		}
	}
	g.Timing, g.Limits = g.Timing.withDefaults(), g.Limits.withDefaults()
	if g.Random == nil {
		g.Random = rand.Reader
	}
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
	g.byID, g.order = map[ID]*entry{}, nil
	g.users, g.held = map[string]*user{}, map[string]bool{}
	g.strangers, g.started = map[ID]*stranger{}, map[slot][]time.Time{}
	g.told, g.changes, g.wake = map[ID]NoticeCode{}, make(chan struct{}), make(chan struct{}, 1)
	for _, e := range all {
		g.put(e)
		if apart(g.now(), e.Created) < day {
			g.started[slotOf(e)] = append(g.started[slotOf(e)], e.Created)
		}
		g.byID[e.ID].woken = e.Problem != nil && e.Problem.Kind == Waiting && e.NextAttempt.IsZero()
	}
	g.loaded, g.dirty = true, true
	return nil
}

// Run works what is due until ctx ends, then waits for what is in flight.
func (g *Engine) Run(ctx context.Context) error {
	g.mu.Lock()
	loaded := g.loaded
	g.mu.Unlock()
	if !loaded {
		return ErrNotLoaded
	}
	defer g.flights.Wait()
	for ctx.Err() == nil {
		timer := time.NewTimer(g.pass(ctx))
		select {
		case <-ctx.Done():
		case <-g.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// Wake makes Run look at once.
func (g *Engine) Wake() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Enrollments gives all enrollments, oldest first. What they point to is shared
// and must not be changed.
func (g *Engine) Enrollments() []Enrollment {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Enrollment, 0, len(g.order))
	for _, n := range g.order {
		all = append(all, n.e)
	}
	return all
}

// Changes gives a channel that is closed at the next change of any enrollment.
func (g *Engine) Changes() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changes
}

// now is wall-clock time: a monotonic reading stands still while the machine
// sleeps.
func (g *Engine) now() time.Time { return g.Now().Round(0).UTC() }

// commit saves what changed together with the events that tell of it, then lets
// memory follow. Callers hold mu.
func (g *Engine) commit(changed []Enrollment, told ...Event) error {
	if len(changed) == 0 {
		return nil
	}
	if err := g.Ledger.Save(changed, told); err != nil {
		return &Error{
			Kind: Transient, Code: CodeRecordFailed, Err: err,
			Hint: "The agent cannot write its record. Check the disk and the rights of the agent's data folder.",
		}
	}
	for _, e := range changed {
		g.put(e)
	}
	g.changed()
	return nil
}

// save commits one.
func (g *Engine) save(e Enrollment, told ...Event) error { return g.commit([]Enrollment{e}, told...) }

// put lets memory follow what is saved.
func (g *Engine) put(e Enrollment) {
	if n, ok := g.byID[e.ID]; ok {
		n.e = e
		return
	}
	n := &entry{e: e}
	g.byID[e.ID] = n
	at, _ := slices.BinarySearchFunc(g.order, e.ID, func(o *entry, id ID) int {
		return strings.Compare(string(o.e.ID), string(id))
	})
	g.order = slices.Insert(g.order, at, n)
}

// changed tells whoever follows, and has the plan looked at again.
func (g *Engine) changed() {
	g.dirty = true
	close(g.changes)
	g.changes = make(chan struct{})
}

// event tells of e as it is after the change.
func (g *Engine) event(code EventCode, e Enrollment, success bool, fields ...string) Event {
	ev := Event{At: g.now(), Code: code, Enrollment: e, Outcome: "success"}
	if !success {
		ev.Outcome = "failure"
	}
	for i := 0; i+1 < len(fields); i += 2 {
		if ev.Fields == nil {
			ev.Fields = map[string]string{}
		}
		ev.Fields[fields[i]] = fields[i+1]
	}
	return ev
}

// tell puts an event on record that comes with no change of ours. Callers hold mu.
func (g *Engine) tell(ev Event) {
	if err := g.Ledger.Save(nil, []Event{ev}); err != nil {
		g.Log.Error("event not recorded", "event", string(ev.Code), "enrollment", ev.Enrollment.ID, "error", err.Error())
	}
}

// unlock gives mu back and wakes Run.
func (g *Engine) unlock() {
	g.mu.Unlock()
	g.Wake()
}

// newID is [IDPrefix] and a UUID version 7 (RFC 9562 §5.7): 48 bits of
// milliseconds, then random bits, so that names sort by age.
func (g *Engine) newID(now time.Time) (ID, error) {
	var u [16]byte
	if _, err := io.ReadFull(g.Random, u[6:]); err != nil {
		return "", err
	}
	ms := uint64(max(now.UnixMilli(), 0))
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return ID(IDPrefix + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")), nil
}
