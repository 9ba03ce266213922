package enroll

import (
	"encoding/binary"
	"time"
)

// Timing holds every span that the engine waits; zero fields take the defaults
// that are named here.
type Timing struct {
	// Look is how often an idle engine compares the wall clock with its
	// deadlines; it bounds how late a deadline is seen after sleep (1 min).
	Look time.Duration
	// Sleep is the longest wait of an idle engine (Look). It may be long where
	// somebody calls [Engine.Wake] now and then and whenever the machine has slept
	// or its clock was set.
	Sleep time.Duration
	// BackoffBase and BackoffCap shape the waits after transient errors: full
	// jitter under a bound that doubles from base to cap (30 s, 30 min).
	BackoffBase, BackoffCap time.Duration
	// OutageCap is the cap while central cannot be reached, for the whole engine:
	// one request in half that time on average (75 min).
	OutageCap time.Duration
	// Floor is the least time between two tries of one step, whatever wakes it (10 s).
	Floor time.Duration
	// MaxRetryAfter bounds what the other side may ask for (24 h).
	MaxRetryAfter time.Duration
	// PollPending is when to ask again for what is pending, if the authority does
	// not say (15 min).
	PollPending time.Duration
	// WaitRecheck is when to look again at what waits for somebody (4 h).
	WaitRecheck time.Duration
	// OverPause is when, after a final end, an automatic reason may hold again
	// although nothing changed (7 days).
	OverPause time.Duration
	// ProofInterval is how often each kept key is proved (24 h), and
	// InventoryInterval how often the stores are read unasked (4 h).
	ProofInterval, InventoryInterval time.Duration
	// PostponeFor is how long "later" is; PromptTimeout is how long a prompt stays
	// open (4 h, 1 h).
	PostponeFor, PromptTimeout time.Duration
	// StepTimeout bounds every other step (5 min; a key in a TPM or on a card
	// takes its time, and a PIN may be asked for).
	StepTimeout time.Duration
	// Ahead is how far in the future a certificate may begin (10 min).
	Ahead time.Duration
	// EndingWithin is when people are told that a certificate ends (7 days).
	EndingWithin time.Duration
}

func (t Timing) withDefaults() Timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Look, time.Minute},
		{&t.BackoffBase, 30 * time.Second},
		{&t.BackoffCap, 30 * time.Minute},
		{&t.OutageCap, 75 * time.Minute},
		{&t.Floor, 10 * time.Second},
		{&t.MaxRetryAfter, day},
		{&t.PollPending, 15 * time.Minute},
		{&t.WaitRecheck, 4 * time.Hour},
		{&t.OverPause, 7 * day},
		{&t.ProofInterval, day},
		{&t.InventoryInterval, 4 * time.Hour},
		{&t.PostponeFor, 4 * time.Hour},
		{&t.PromptTimeout, time.Hour},
		{&t.StepTimeout, 5 * time.Minute},
		{&t.Ahead, 10 * time.Minute},
		{&t.EndingWithin, 7 * day},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	if t.Sleep <= 0 {
		t.Sleep = t.Look
	}
	return t
}

// Limits bounds what the engine may ask of the authority; zero fields take the
// defaults that are named here.
type Limits struct {
	// RequestsPerDay is for one enrollment (300); a restart counts anew.
	RequestsPerDay int
	// EnrollmentsPerDay is for one slot, whatever the reason (6).
	EnrollmentsPerDay int
	// Requests is how many calls to the authority may be in flight (8).
	Requests int
}

func (l Limits) withDefaults() Limits {
	if l.RequestsPerDay <= 0 {
		l.RequestsPerDay = 300
	}
	if l.EnrollmentsPerDay <= 0 {
		l.EnrollmentsPerDay = 6
	}
	if l.Requests <= 0 {
		l.Requests = 8
	}
	return l
}

// bound is base doubled with each failure after the first, and never over limit.
func bound(base, limit time.Duration, failures int) time.Duration {
	d := base
	for i := 1; i < failures && d < limit; i++ {
		d *= 2
	}
	return min(d, limit)
}

// backoff draws a wait: anything up to the bound, but never under the floor, and
// never sooner than the other side wishes.
func (g *Engine) backoff(failures int, limit, wish time.Duration) time.Duration {
	d := time.Duration(g.fraction() * float64(bound(g.Timing.BackoffBase, limit, failures)))
	return max(d, g.Timing.Floor, min(wish, g.Timing.MaxRetryAfter))
}

// fraction draws from [0, 1).
func (g *Engine) fraction() float64 {
	var b [8]byte
	if _, err := g.Random.Read(b[:]); err != nil {
		return 0.5 // no randomness is no reason to hurry
	}
	return unit(b[:])
}

// unit maps eight bytes to [0, 1).
func unit(b []byte) float64 {
	return float64(binary.BigEndian.Uint64(b)>>11) / (1 << 53)
}

// gate is the brake for all calls to the authority while it cannot be reached:
// after a failure one call at a time tries again.
type gate struct {
	failures int
	until    time.Time
	inFlight int
}

// open says when the next call may start.
func (t *gate) open(now time.Time, longest time.Duration) time.Time {
	if t.failures == 0 {
		return now
	}
	return sane(t.until, now, longest)
}

// full says that a call must wait for one in flight.
func (t *gate) full(limit int) bool {
	if t.failures > 0 {
		limit = 1
	}
	return t.inFlight >= limit
}

// sane takes a deadline further away than any that is ever set for a clock that
// jumped: it is due.
func sane(at, now time.Time, longest time.Duration) time.Time {
	if at.After(now.Add(longest)) {
		return now
	}
	return at
}

// apart is how far two times lie from each other, whichever way the clock went.
func apart(a, b time.Time) time.Duration { return a.Sub(b).Abs() }
