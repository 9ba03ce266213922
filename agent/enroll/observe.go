package enroll

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"reflect"
	"slices"
	"time"
)

// user is what is known of a person's stores.
type user struct {
	found   Inventory
	known   bool      // found was read at least once
	due     bool      // it is to be read again, as soon as the floor allows
	read    time.Time // when it was tried last
	reading bool
	working int // jobs on his stores in flight
}

func (g *Engine) userOf(name string) *user {
	u := g.users[name]
	if u == nil {
		u = &user{}
		g.users[name] = u
	}
	return u
}

// Attach says that a user's helper is there now, or that his stores changed. It
// never blocks and takes no lock that is held while Sessions is called.
func (g *Engine) Attach(name string) {
	g.inbox.Lock()
	if g.attached == nil {
		g.attached = map[string]bool{}
	}
	g.attached[name] = true
	g.inbox.Unlock()
	g.Wake()
}

// takeAttached wakes what waited for these users. Callers hold mu.
func (g *Engine) takeAttached(time.Time) {
	g.inbox.Lock()
	names := g.attached
	g.attached = nil
	g.inbox.Unlock()
	for name := range names {
		g.userOf(name).due = true
		for _, n := range g.order {
			if n.e.Assignment.User != name {
				continue
			}
			g.mailSoon(n)
			if n.e.inProgress() && wakesAtLogin(n.e.Problem) {
				n.woken = true
			}
		}
	}
}

// wakesAtLogin: a helper that comes, or a store that changed, may be what was
// missing.
func wakesAtLogin(p *Problem) bool {
	if p == nil {
		return false
	}
	switch p.Code {
	case CodeUserAbsent, CodeConsentPending, CodeNobodyToAsk,
		CodeStoreMissing, CodeStoreLocked, CodeStoreDenied, CodeStoreUnsuitable, CodeStoreHangs:
		return true
	default:
		return false
	}
}

// Inventory gives what was last found in a user's stores.
func (g *Engine) Inventory(name string) (Inventory, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u, ok := g.users[name]
	if !ok || !u.known {
		return Inventory{}, false
	}
	return u.found, true
}

// judgeAgain judges what was found before it could be judged, and has every
// user's stores read again. Callers hold mu.
func (g *Engine) judgeAgain() {
	for name, u := range g.users {
		u.due = true
		if u.known {
			g.judgeStrangers(name, u.found)
		}
	}
}

// inventoryJobs read stores. While that lasts nothing else touches them, so that
// a key is never missed because it was just being made.
func (g *Engine) inventoryJobs(now time.Time) []job {
	for _, a := range g.policy.Assignments {
		g.userOf(a.User)
	}
	var list []job
	for name, u := range g.users {
		s, present := g.Sessions.Session(name)
		if !present || u.reading || u.working > 0 {
			continue
		}
		at := sane(u.read.Add(g.Timing.InventoryInterval), now, g.Timing.InventoryInterval)
		if u.due || !u.known {
			at = sane(u.read.Add(g.Timing.Floor), now, g.Timing.Floor)
		}
		if !at.After(now) {
			u.reading, u.due, u.read = true, false, now
		}
		modules := g.userModules(name)
		list = append(list, job{at: at, do: func(ctx context.Context) { g.read(ctx, name, s, modules) }})
	}
	return list
}

func (g *Engine) read(ctx context.Context, name string, s Session, modules []Module) {
	defer func() {
		g.mu.Lock()
		g.userOf(name).reading = false
		g.mu.Unlock()
	}()
	bounded, cancel := context.WithTimeout(ctx, g.Timing.StepTimeout)
	defer cancel()
	at := g.now()
	found, err := s.Inventory(bounded, modules)
	found.At = at
	if err != nil {
		if ctx.Err() == nil {
			g.Log.Warn("stores not read", "user", name, "error", err.Error())
		}
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.observe(name, found)
}

// observe compares what the stores hold with what is on record. Callers hold mu.
func (g *Engine) observe(name string, found Inventory) {
	u := g.userOf(name)
	slices.SortFunc(found.Keys, func(a, b KeyFound) int { // a listing has no order of its own
		return cmp.Or(cmp.Compare(a.Store, b.Store), cmp.Compare(a.ID, b.ID))
	})
	news := !u.known || !reflect.DeepEqual(u.found.Stores, found.Stores) || !reflect.DeepEqual(u.found.Keys, found.Keys)
	u.found, u.known = found, true
	readable := map[string]bool{}
	for _, s := range found.Stores {
		readable[s.Name] = true
	}
	for _, n := range g.order {
		if n.e.Assignment.User != name || !readable[n.e.Store] || n.busy {
			continue
		}
		k, there := keyIn(found, n.e)
		g.judge(n, k, there)
		if news && n.e.proves() && n.e.Proof != nil {
			g.proveSoon(n)
		}
	}
	g.judgeStrangers(name, found)
	if news {
		g.changed()
	}
	g.planNow()
}

// keyIn finds the enrollment's key; a key of that name that is another one does
// not count.
func keyIn(found Inventory, e Enrollment) (KeyFound, bool) {
	for _, k := range found.Keys {
		if k.ID == e.KeyName() && k.Store == e.Store {
			return k, !otherKey(k, e)
		}
	}
	return KeyFound{}, false
}

// otherKey is true only if both keys can be read and differ.
func otherKey(k KeyFound, e Enrollment) bool {
	leaf := leafOf(e)
	if leaf == nil || len(k.PublicKey) == 0 || bytes.Equal(k.PublicKey, leaf.RawSubjectPublicKeyInfo) {
		return false
	}
	found, err := x509.ParsePKIXPublicKey(k.PublicKey)
	return err == nil && !sameKey(found, leaf.PublicKey)
}

func keyMissing() *Error {
	return &Error{Kind: Final, Code: CodeKeyMissing,
		Hint: "The key is no longer in its store. The agent gets a new certificate; restore the old key from a backup if old mail needs it."}
}

// judge draws the conclusions from one key's being there or not, in a store that
// could be read.
func (g *Engine) judge(n *entry, k KeyFound, there bool) {
	e := n.e
	switch {
	case e.inProgress() && len(e.CSR) > 0 && !there:
		x := keyMissing()
		e.Problem = g.problem(e, Final, x)
		g.end(e, x)
	case e.State != Active && e.State != Kept:
	case !there:
		n.missing, n.bare = true, false
		x := keyMissing()
		kind := Waiting
		if e.State == Kept {
			x.Code, x.Hint = CodeOldKeyUnusable, "A key for old mail is no longer in its store. Restore it from a backup."
		}
		if e.Problem == nil || e.Problem.Code != x.Code {
			e.Problem = g.problem(e, kind, x)
			g.keep(e)
		}
	default:
		if n.missing && e.Problem != nil {
			e.Problem = nil
			g.keep(e)
		}
		n.missing = false
		n.bare = len(k.Chain) == 0 && len(e.Chain) > 0
	}
}
