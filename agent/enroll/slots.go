package enroll

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// slot is a place for one credential. Never two active, never two in progress.
type slot struct {
	user, mailbox, profile, store string
}

func slotOf(e Enrollment) slot {
	return slot{e.Assignment.User, foldMailbox(e.Mailbox()), e.Assignment.Profile.Name, e.Store}
}

// family is an assignment's slots, whatever the store.
func (s slot) family() slot { s.store = ""; return s }

func familyOf(a Assignment) slot { return slotOf(Enrollment{Assignment: a}) }

// occupants is what has been in a slot.
type occupants struct {
	active   *entry
	progress *entry
	over     *entry // the last one
	overs    int    // how many within the last pause
}

func (g *Engine) occupantsBySlot(now time.Time) map[slot]*occupants {
	all := make(map[slot]*occupants, len(g.order))
	for _, n := range g.order {
		s := slotOf(n.e)
		o := all[s]
		if o == nil {
			o = &occupants{}
			all[s] = o
		}
		switch {
		case n.e.inProgress():
			o.progress = n
		case n.e.State == Active:
			o.active = n
		case n.e.State == Over:
			o.over = n
			if apart(now, n.e.Changed) < g.Timing.OverPause {
				o.overs++
			}
		}
	}
	return all
}

// protections ranks what a store claims; what is not known ranks lowest.
var protections = map[string]int{"software": 1, "non-exportable": 2, "hardware": 3}

// suits says that a store is strong enough and makes an accepted kind of key.
func suits(p Profile, s StoreFound) bool {
	if p.MinProtection != "" {
		least, known := protections[p.MinProtection]
		if !known || protections[s.Protection] < least {
			return false
		}
	}
	return slices.ContainsFunc(p.Keys, func(k string) bool { return slices.Contains(s.Algorithms, k) })
}

// matches: "nss:*" is a prefix, everything else a name.
func matches(pattern, store string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(store, prefix)
	}
	return pattern == store
}

const autoStore = "auto"

func (a Assignment) patterns() []string {
	if len(a.Stores) == 0 {
		return []string{autoStore}
	}
	return a.Stores
}

// takes says that the assignment may have a credential in this store.
func (a Assignment) takes(store string) bool {
	for _, p := range a.patterns() {
		if p == autoStore || matches(p, store) {
			return true
		}
	}
	return false
}

// wantedStores are the stores where the assignment is to have a credential.
// before are the stores where it has or had one: they stay wanted although a
// store may be out of reach just now, and auto does not wander between stores.
func wantedStores(a Assignment, found []StoreFound, before []string) []string {
	var names []string
	add := func(s string) {
		if !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	for _, p := range a.patterns() {
		if p == autoStore {
			if s, ok := autoChoice(a, found, before); ok {
				add(s)
			}
			continue
		}
		for _, s := range before {
			if matches(p, s) {
				add(s)
			}
		}
		for _, s := range found {
			if matches(p, s.Name) && suits(a.Profile, s) {
				add(s.Name)
			}
		}
	}
	return names
}

func autoChoice(a Assignment, found []StoreFound, before []string) (string, bool) {
	if len(before) > 0 {
		return before[0], true
	}
	for _, s := range found {
		if suits(a.Profile, s) {
			return s.Name, true
		}
	}
	return "", false
}

// storesBefore are the stores of a family's live enrollments: active ones
// first, then those in progress; each newest first.
func (g *Engine) storesBefore() map[slot][]string {
	live := make([]*entry, 0, len(g.order))
	for _, n := range g.order {
		if n.e.Store != "" && (n.e.State == Active || n.e.inProgress()) {
			live = append(live, n)
		}
	}
	slices.SortStableFunc(live, func(a, b *entry) int {
		if x, y := a.e.State == Active, b.e.State == Active; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.e.ID, a.e.ID)
	})
	all := map[slot][]string{}
	for _, n := range live {
		f := slotOf(n.e).family()
		if !slices.Contains(all[f], n.e.Store) {
			all[f] = append(all[f], n.e.Store)
		}
	}
	return all
}

// assignmentFor finds what policy now says for an enrollment. Callers hold mu.
func (g *Engine) assignmentFor(e Enrollment) (Assignment, bool) {
	f := slotOf(e).family()
	for _, a := range g.policy.Assignments {
		if familyOf(a) == f && (e.Store == "" || a.takes(e.Store)) {
			return a, true
		}
	}
	return Assignment{}, false
}

// modules are all that policy lets the user's helper load now; those of the
// enrollment serve where policy no longer knows the user. Callers hold mu.
func (g *Engine) modules(e Enrollment) []Module {
	ms := g.userModules(e.Assignment.User)
	for _, m := range e.Assignment.Modules {
		if !slices.Contains(ms, m) {
			ms = append(ms, m)
		}
	}
	return ms
}

func (g *Engine) userModules(user string) []Module {
	var ms []Module
	for _, a := range g.policy.Assignments {
		if a.User != user {
			continue
		}
		for _, m := range a.Modules {
			if !slices.Contains(ms, m) {
				ms = append(ms, m)
			}
		}
	}
	return ms
}
