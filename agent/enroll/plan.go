package enroll

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Apply takes a new policy. Assignments that say too little are left out and
// named in the error; the others are in force. The engine keeps p.
func (g *Engine) Apply(p Policy) error {
	g.mu.Lock()
	defer g.unlock()
	if !g.loaded {
		return ErrNotLoaded
	}
	var bad []error
	good := make([]Assignment, 0, len(p.Assignments))
	for i, a := range p.Assignments {
		if err := usable(a); err != nil {
			bad = append(bad, fmt.Errorf("assignment %d: %w", i, err))
			continue
		}
		good = append(good, a)
	}
	p.Assignments = good
	first := !g.hasPolicy
	modules := map[string][]Module{}
	for name := range g.users {
		modules[name] = g.userModules(name)
	}
	g.policy, g.hasPolicy = p, true
	for name, u := range g.users { // with other modules there may be other stores
		if !slices.Equal(modules[name], g.userModules(name)) {
			u.due, u.read = true, time.Time{}
		}
	}
	if first {
		g.judgeAgain()
	} else { // what lies in the stores may fit now; that comes before anything new
		for name, u := range g.users {
			if u.known {
				g.judgeStrangers(name, u.found)
			}
		}
	}
	if err := g.suggest(p.SuggestedRenewal); err != nil {
		bad = append(bad, err)
	}
	g.planNow()
	return errors.Join(bad...)
}

func usable(a Assignment) error {
	switch {
	case a.User == "":
		return errors.New("no user")
	case len(a.Mailboxes) == 0 || a.Mailboxes[0] == "":
		return errors.New("no mailbox")
	case a.Profile.Name == "":
		return errors.New("no profile")
	case !a.Profile.Sign && !a.Profile.Encrypt:
		return fmt.Errorf("profile %s neither signs nor encrypts", a.Profile.Name)
	}
	return nil
}

// planNow compares what is wanted with what there is. Callers hold mu. What
// cannot be saved stays undone and is planned again.
func (g *Engine) planNow() {
	now := g.now()
	g.planned, g.dirty = now, false
	if !g.hasPolicy || g.Rebuilding {
		return
	}
	wanted := g.wantedSlots()
	if err := errors.Join(g.placeStoreless(wanted), g.markUnwanted(wanted)); err != nil {
		g.Log.Error("plan not recorded", "error", err.Error())
	}
	all := g.occupantsBySlot(now)
	for _, w := range wanted {
		if _, err := g.planSlot(w, all, wanted, "", now); err != nil {
			g.Log.Error("plan not recorded", "user", w.slot.user, "error", err.Error())
		}
	}
	g.dirty = false
}

// planAsked plans the slots that the filter picks, as somebody asked.
func (g *Engine) planAsked(f Filter, asked Reason) ([]ID, error) {
	g.planNow()
	now := g.now()
	wanted := g.wantedSlots()
	var ids []ID
	var errs []error
	for _, w := range wanted {
		all := g.occupantsBySlot(now)
		if !f.fitsSlot(w.slot, all[w.slot]) {
			continue
		}
		n, err := g.planSlot(w, all, wanted, asked, now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if n != nil {
			n.woken = n.woken || n.e.Problem == nil || n.e.Problem.Code != CodeConsentDeclined
			ids = append(ids, n.e.ID)
		}
	}
	if len(ids) == 0 && len(errs) == 0 {
		return nil, ErrNoneFits
	}
	return ids, errors.Join(errs...)
}

func (f Filter) fitsSlot(s slot, o *occupants) bool {
	if f.User != "" && f.User != s.user {
		return false
	}
	if f.Target == "" || foldMailbox(f.Target) == s.mailbox {
		return true
	}
	if o == nil {
		return false
	}
	for _, n := range []*entry{o.active, o.progress, o.over} {
		if n != nil && string(n.e.ID) == f.Target {
			return true
		}
	}
	return false
}

// place is a slot with the assignment that wants it.
type place struct {
	slot slot
	a    Assignment
}

// wantedSlots are the places that policy wants filled, each once, in its order.
// A slot without a store stands for a user whose stores are not known, or hold
// nothing that fits.
func (g *Engine) wantedSlots() []place {
	before := g.storesBefore()
	seen := map[slot]bool{}
	var all []place
	for _, a := range g.policy.Assignments {
		f := familyOf(a)
		stores := wantedStores(a, g.userOf(a.User).found.Stores, before[f])
		if len(stores) == 0 {
			stores = []string{""}
		}
		for _, name := range stores {
			s := f
			s.store = name
			if !seen[s] {
				seen[s] = true
				all = append(all, place{s, a})
			}
		}
	}
	return all
}

// planSlot begins an enrollment if there is a reason, and gives the one in
// progress, if any.
func (g *Engine) planSlot(w place, all map[slot]*occupants, wanted []place, asked Reason, now time.Time) (*entry, error) {
	o := all[w.slot]
	if o == nil {
		o = &occupants{}
	}
	if o.progress != nil {
		return o.progress, g.takeOver(o.progress, w.a)
	}
	c := circumstances{wanted: w.a, active: o.active, asked: asked, now: now}
	c.missing = o.active != nil && o.active.missing
	reason, ok := reasonFor(c)
	if !ok || g.blocked(o, c) {
		return nil, nil
	}
	if g.spent(w.slot, now) {
		if asked == "" {
			return nil, nil
		}
		return nil, &Error{Kind: Waiting, Code: CodeRequestRefused,
			Hint: "Too many certificates were asked for today. Try again tomorrow."}
	}
	e := Enrollment{Assignment: w.a, Store: w.slot.store, State: Wanted, Reason: reason, Created: now, Changed: now}
	g.follow(&e, o, wanted)
	e.Consent = g.firstConsent(e)
	return g.begin(e, w)
}

// follow links a new enrollment to the one whose place it takes: the active one
// of its slot, or that of a profile that policy gives no longer.
func (g *Engine) follow(e *Enrollment, o *occupants, wanted []place) {
	old := o.active
	if old == nil {
		if old = g.abandoned(*e, wanted); old == nil {
			return
		}
		e.Reason = ReasonProfileChanged
	}
	e.Replaces = old.e.ID
	if g.reuses(*e, old) {
		e.Key = old.e.KeyName()
	}
}

// abandoned finds an active enrollment of the same mailbox in the same store
// whose profile is no longer wanted.
func (g *Engine) abandoned(e Enrollment, wanted []place) *entry {
	s := slotOf(e)
	for _, n := range g.order {
		t := slotOf(n.e)
		if n.e.State != Active || t == s || t.user != s.user || t.mailbox != s.mailbox || t.store != s.store {
			continue
		}
		still := false
		for _, w := range wanted {
			still = still || w.slot == t
		}
		if !still {
			return n
		}
	}
	return nil
}

// begin puts a new enrollment on record before anything else happens.
func (g *Engine) begin(e Enrollment, w place) (*entry, error) {
	id, err := g.newID(e.Created)
	if err != nil {
		return nil, fmt.Errorf("name enrollment: %w", err)
	}
	e.ID = id
	if e.Store == "" {
		e.Problem = g.problem(e, Waiting, g.storeless(w))
	}
	code := EventWanted
	if e.Replaces != "" {
		code = EventRenewal
	}
	if err := g.save(e, g.event(code, e, true, "reason", string(e.Reason))); err != nil {
		return nil, err
	}
	g.started[w.slot] = append(g.started[w.slot], e.Created)
	return g.byID[id], nil
}

// storeless says why an enrollment has no store yet.
func (g *Engine) storeless(w place) *Error {
	u := g.userOf(w.slot.user)
	if !u.known {
		return errAbsent()
	}
	if len(u.found.Failures) > 0 {
		return u.found.Failures[0]
	}
	for _, s := range u.found.Stores {
		if w.a.takes(s.Name) {
			return &Error{Kind: Waiting, Code: CodeStoreUnsuitable,
				Hint: "No key store of this user fits what policy wants. Tell the administrator."}
		}
	}
	return &Error{Kind: Waiting, Code: CodeStoreMissing,
		Hint: "The key store is not there. Start the mail program once, or insert the card."}
}

// takeOver gives an enrollment that has asked nothing of anybody yet the present
// text of its assignment.
func (g *Engine) takeOver(n *entry, a Assignment) error {
	if len(n.e.CSR) > 0 || reflect.DeepEqual(n.e.Assignment, a) {
		return nil
	}
	if n.busy && n.asking == nil {
		n.outdated = true
		return nil
	}
	e := n.e
	e.Assignment = a
	if err := g.save(e); err != nil {
		return err
	}
	n.woken = n.woken || !g.mustAsk(e)
	return nil
}

// placeStoreless finds stores for enrollments that began without; one that finds
// no free place ends.
func (g *Engine) placeStoreless(wanted []place) error {
	all := g.occupantsBySlot(g.now())
	for _, n := range g.order {
		if n.e.Store != "" || !n.e.inProgress() {
			continue
		}
		if err := g.placeOne(n, all, wanted); err != nil {
			return err
		}
	}
	return nil
}

func (g *Engine) placeOne(n *entry, all map[slot]*occupants, wanted []place) error {
	e := n.e
	f := slotOf(e)
	settled := false
	for _, w := range wanted {
		if w.slot.family() != f {
			continue
		}
		if w.slot.store == "" {
			x := g.storeless(w)
			if p := e.Problem; p != nil && p.Code == x.Code {
				return nil
			}
			e.Problem = g.problem(e, Waiting, x)
			return g.save(e)
		}
		if o := all[w.slot]; o == nil || o.active == nil && o.progress == nil {
			e.Store, e.Problem, e.NextAttempt = w.slot.store, nil, time.Time{}
			all[w.slot] = &occupants{progress: n}
			return g.save(e)
		}
		settled = true
	}
	if !settled {
		return nil // no longer wanted at all
	}
	e.State, e.Unwanted, e.Changed = Over, true, g.now()
	return g.save(e)
}

// markUnwanted stops what policy no longer gives, and takes it up again if it
// does. A request that the authority may have is seen through: somebody may
// already encrypt for its certificate.
func (g *Engine) markUnwanted(wanted []place) error {
	is := make(map[slot]bool, len(wanted))
	for _, w := range wanted {
		is[w.slot] = true
	}
	var changed []Enrollment
	var told []Event
	for _, n := range g.order {
		e := n.e
		unwanted := !is[slotOf(e)]
		if e.State == Kept || e.State == Over || e.Unwanted == unwanted {
			continue
		}
		e.Unwanted = unwanted
		if unwanted && e.State.rank() < Submitted.rank() && (!n.busy || n.asking != nil) {
			e.State, e.Changed, e.Problem = Over, g.now(), nil
			if n.asking != nil {
				n.asking()
			}
			told = append(told, g.event(EventEnded, e, true, "code", "unwanted"))
		}
		changed = append(changed, e)
	}
	return g.commit(changed, told...)
}
