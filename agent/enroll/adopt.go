package enroll

import (
	"cmp"
	"context"
	"crypto/x509"
	"slices"
	"time"
)

// stranger is a key that bears one of our names but has no enrollment.
type stranger struct {
	user, store string
	// certified: it has a certificate, but for nothing that policy gives. Perhaps
	// policy did not know of this user yet, as on a machine whose record is gone.
	certified bool
	// cleared: central management was asked after the key was seen, and does not
	// know it either. Only then may it go.
	cleared bool
	tried   time.Time
	busy    bool
}

// NeedsKnown says that the engine wants to know what central management has of
// this machine, by [Engine.Restore]: the record was lost, or keys were found
// that nobody here can explain.
func (g *Engine) NeedsKnown() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Rebuilding {
		return true
	}
	for _, s := range g.strangers {
		if !s.cleared {
			return true
		}
	}
	return false
}

// judgeStrangers looks at keys of ours that no enrollment explains: those with a
// certificate that policy gives are taken in; those with another one are so after
// central was asked, and those without wait for central's word.
func (g *Engine) judgeStrangers(name string, found Inventory) {
	for id, s := range g.strangers {
		if s.user == name && !s.busy && !slices.ContainsFunc(found.Keys, func(k KeyFound) bool {
			return k.ID == id && k.Store == s.store && len(k.Chain) > 0 == s.certified
		}) {
			delete(g.strangers, id)
		}
	}
	if !g.hasPolicy || g.Rebuilding {
		return
	}
	type certified struct {
		key  KeyFound
		leaf *x509.Certificate
	}
	var adoptable []certified
	for _, k := range found.Keys {
		if g.explains(k.ID) {
			continue
		}
		if len(k.Chain) == 0 {
			g.noteStranger(name, k)
			continue
		}
		leaf, err := x509.ParseCertificate(k.Chain[0])
		if err != nil { // one broken certificate must not stop everything
			g.Log.Warn("certificate cannot be read", "user", name, "enrollment", k.ID, "store", k.Store, "error", err.Error())
			continue
		}
		_, fits, _ := g.assignmentOf(name, k, leaf)
		if s := g.strangers[k.ID]; !fits && (s == nil || !s.cleared) {
			g.noteStranger(name, k)
			continue
		}
		adoptable = append(adoptable, certified{k, leaf})
	}
	slices.SortFunc(adoptable, func(a, b certified) int { // newest first
		return cmp.Or(b.leaf.NotBefore.Compare(a.leaf.NotBefore), cmp.Compare(b.key.ID, a.key.ID))
	})
	for _, c := range adoptable {
		g.adopt(name, c.key, c.leaf)
	}
}

// explains says that some enrollment stands for the key.
func (g *Engine) explains(key ID) bool {
	if _, ok := g.byID[key]; ok {
		return true
	}
	return slices.ContainsFunc(g.order, func(n *entry) bool { return n.e.Key == key })
}

func (g *Engine) noteStranger(name string, k KeyFound) {
	if _, ok := g.strangers[k.ID]; ok {
		return
	}
	s := &stranger{user: name, store: k.Store, certified: len(k.Chain) > 0}
	g.strangers[k.ID] = s
	if !s.certified {
		e := Enrollment{ID: k.ID, Store: k.Store, Created: k.Created, Assignment: Assignment{User: name}}
		g.tell(g.event(EventOrphan, e, true))
	}
	g.changed()
}

// adopt takes a key with its certificate on record: to be proved and used if it
// is the newest of a slot that policy wants and passes every check, kept for old
// mail otherwise.
func (g *Engine) adopt(name string, k KeyFound, leaf *x509.Certificate) {
	now := g.now()
	a, fits, sound := g.assignmentOf(name, k, leaf)
	e := Enrollment{
		ID: k.ID, Assignment: a, Store: k.Store, State: Kept, Reason: ReasonAdopted, Unwanted: !fits,
		Created: now, Changed: now, NextProof: now, Consent: Consent{NotNeeded: true, At: now},
	}
	for _, s := range g.userOf(name).found.Stores {
		if s.Name == k.Store {
			e.Protection = s.Protection
		}
	}
	setChain(&e, k.Chain, leaf, time.Time{})
	g.useIfNewest(&e, leaf, sound)
	if err := g.save(e, g.event(EventAdopted, e, true, "state", string(e.State))); err != nil {
		g.Log.Error("adoption not recorded", "enrollment", e.ID, "user", name, "error", err.Error())
		return
	}
	delete(g.strangers, e.ID)
}

// useIfNewest lets a sound credential follow what its slot has now.
func (g *Engine) useIfNewest(e *Enrollment, leaf *x509.Certificate, sound bool) {
	o := g.occupantsBySlot(g.now())[slotOf(*e)]
	switch {
	case !sound || o != nil && o.progress != nil:
		return
	case o != nil && o.active != nil:
		current := leafOf(o.active.e)
		if current != nil && !current.NotBefore.Before(leaf.NotBefore) {
			return
		}
		e.Replaces = o.active.e.ID
	}
	e.State = Installed
}

// assignmentOf finds what policy says for a certificate that was found: fits, if
// an assignment is for its mailbox and store; sound, if it passes every check of
// that assignment. Without one its own content must do.
func (g *Engine) assignmentOf(name string, k KeyFound, leaf *x509.Certificate) (a Assignment, fits, sound bool) {
	a = assignmentFromLeaf(name, leaf)
	have := mailboxSet(leaf.EmailAddresses)
	for _, w := range g.policy.Assignments {
		if w.User != name || !w.takes(k.Store) || !have[foldMailbox(w.Mailboxes[0])] {
			continue
		}
		r := ChainRules{
			PublicKey: k.PublicKey, Mailboxes: w.Mailboxes, Sign: w.Profile.Sign, Encrypt: w.Profile.Encrypt,
			MaxValidity: w.Profile.MaxValidity, Anchors: g.policy.Anchors, Now: g.now(), Ahead: g.Timing.Ahead,
		}
		if _, err := CheckChain(k.Chain, r); err == nil {
			return w, true, true
		}
		if !fits {
			a, fits = w, true
		}
	}
	return a, fits, false
}

func assignmentFromLeaf(name string, leaf *x509.Certificate) Assignment {
	return Assignment{
		User: name, Mailboxes: leaf.EmailAddresses,
		Profile: Profile{
			Sign:    leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0,
			Encrypt: leaf.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) != 0,
		},
	}
}

// discardJobs remove keys that nobody knows and that never got a certificate,
// as far as the machine and central management can tell. The store has the last
// word and refuses if there is a certificate.
func (g *Engine) discardJobs(now time.Time) []job {
	if g.Rebuilding || !g.loaded {
		return nil
	}
	var list []job
	for id, s := range g.strangers {
		if s.certified || !s.cleared || !s.tried.IsZero() && apart(now, s.tried) < day || g.explains(id) {
			continue
		}
		session, present := g.Sessions.Session(s.user)
		if !present {
			continue
		}
		modules := g.userModules(s.user)
		list = append(list, job{at: now, lock: "store " + s.user + " " + s.store, user: s.user,
			do: func(ctx context.Context) { g.discard(ctx, session, id, s, modules) }})
	}
	return list
}

func (g *Engine) discard(ctx context.Context, session Session, id ID, s *stranger, modules []Module) {
	g.mu.Lock()
	known := g.explains(id) // a list of central's may have come meanwhile
	s.busy, s.tried = !known, g.now()
	g.mu.Unlock()
	if known {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, g.Timing.StepTimeout)
	defer cancel()
	err := session.Discard(ctx, s.store, id, modules)
	g.mu.Lock()
	defer g.mu.Unlock()
	s.busy = false
	if err != nil {
		g.Log.Warn("orphan key not removed", "user", s.user, "enrollment", id, "store", s.store, "error", err.Error())
		return
	}
	delete(g.strangers, id)
	g.tell(g.event(EventDiscarded, Enrollment{ID: id, Store: s.store, Assignment: Assignment{User: s.user}}, true))
}
