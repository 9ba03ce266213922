package enroll

import "slices"

// reuses says that a renewal keeps the old key: policy says so, or leaves it to
// a store where new keys are costly. A key that is gone, whose certificate was
// revoked, or that does not fit the profile never serves again.
func (g *Engine) reuses(e Enrollment, old *entry) bool {
	a, was := e.Assignment, old.e.Assignment.Profile
	wanted := a.Rotation == SameKey || a.Rotation == "" && g.costly(e)
	sound := !old.missing && !old.e.Revoked && was.Sign == a.Profile.Sign && was.Encrypt == a.Profile.Encrypt
	return wanted && sound && old.e.Store == e.Store && slices.Contains(a.Profile.Keys, old.e.Algorithm)
}

// costly says that each new key in the enrollment's store costs the person
// something. False while nobody has seen the store.
func (g *Engine) costly(e Enrollment) bool {
	for _, s := range g.userOf(e.Assignment.User).found.Stores {
		if s.Name == e.Store {
			return s.CostlyKeys
		}
	}
	return false
}

// keyFor names the key that a request reuses; empty means a new one. It decides
// at the last moment, since the renewal may have been planned while the person
// was away and nobody could say what the store is like.
func (g *Engine) keyFor(e Enrollment) ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.Key != "" || e.Replaces == "" {
		return e.Key
	}
	if old := g.byID[e.Replaces]; old != nil && g.reuses(e, old) {
		return old.e.KeyName()
	}
	return ""
}

// programsAsk says that the mail programs will ask the person for the key of
// this enrollment. Callers hold mu.
func (g *Engine) programsAsk(e Enrollment) bool {
	if !g.costly(e) || e.Key != "" {
		return false
	}
	old := g.byID[e.Replaces]
	return old == nil || len(e.CSR) > 0 || !g.reuses(e, old)
}
