package enroll

import "time"

// circumstances is all that the reasons look at.
type circumstances struct {
	wanted  Assignment
	active  *entry // nil if nothing is in use
	asked   Reason
	now     time.Time
	missing bool
}

// reasons to begin an enrollment, in the order in which they are looked at; the
// first that holds is stored with it. All but the first may rely on an active one.
var reasons = []struct {
	reason Reason
	holds  func(circumstances) bool
}{
	{ReasonFirst, func(c circumstances) bool { return c.active == nil }},
	{ReasonRemoved, func(c circumstances) bool { return c.missing }},
	{ReasonRevoked, func(c circumstances) bool { return c.active.e.Revoked }},
	{ReasonProfileChanged, func(c circumstances) bool { return profileChanged(c.active.e.Assignment, c.wanted) }},
	{ReasonRenewalDue, func(c circumstances) bool { return renewalDue(c.active.e, c.now) }},
	{ReasonPerson, func(c circumstances) bool { return c.asked == ReasonPerson }},
	{ReasonAdministrator, func(c circumstances) bool { return c.asked == ReasonAdministrator }},
}

func reasonFor(c circumstances) (Reason, bool) {
	for _, r := range reasons {
		if r.holds(c) {
			return r.reason, true
		}
	}
	return "", false
}

// profileChanged: generation is the word of central management that
// certificates of the former kind are to be replaced; the accepted kinds of key
// alone are no such word.
func profileChanged(was, wanted Assignment) bool {
	p, q := was.Profile, wanted.Profile
	return p.Generation != q.Generation || p.Sign != q.Sign || p.Encrypt != q.Encrypt ||
		!sameMailboxes(was.Mailboxes, wanted.Mailboxes)
}

func renewalDue(e Enrollment, now time.Time) bool {
	return !e.RenewAt.IsZero() && !now.Before(e.RenewAt)
}

// blocked says that what ended in this slot forbids a new beginning: the same
// would happen again. What changes that: another assignment, somebody who asks,
// or the pause. A key that vanished on the way is worth one more try at once.
func (g *Engine) blocked(o *occupants, c circumstances) bool {
	if o.active != nil && c.missing && o.active.e.Reason == ReasonRemoved &&
		apart(c.now, o.active.e.Created) < g.Timing.OverPause && c.asked == "" {
		return true // a store that loses every key gets no key every hour
	}
	if o.over == nil || c.asked != "" || o.over.e.Unwanted || orderChanged(o.over.e.Assignment, c.wanted) {
		return false
	}
	if o.active != nil && o.active.e.ID > o.over.e.ID {
		return false // settled since
	}
	lost := o.over.e.Problem != nil && o.over.e.Problem.Code == CodeKeyMissing
	return apart(c.now, o.over.e.Changed) < g.Timing.OverPause && (!lost || o.overs > 1)
}

// orderChanged: the authority would now be asked for something else.
func orderChanged(was, wanted Assignment) bool {
	return profileChanged(was, wanted) || was.DisplayName != wanted.DisplayName ||
		was.Profile.MaxValidity != wanted.Profile.MaxValidity || was.Profile.MinProtection != wanted.Profile.MinProtection ||
		!sameWords(was.Profile.Keys, wanted.Profile.Keys)
}

func sameWords(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// spent says that a slot had its enrollments of the day. Callers hold mu.
func (g *Engine) spent(s slot, now time.Time) bool {
	recent := g.started[s][:0]
	for _, at := range g.started[s] {
		if apart(now, at) < day {
			recent = append(recent, at)
		}
	}
	if len(recent) == 0 {
		delete(g.started, s)
	} else {
		g.started[s] = recent
	}
	return len(recent) >= g.Limits.EnrollmentsPerDay
}
