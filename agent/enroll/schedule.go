package enroll

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// job is one thing to do outside, in a goroutine of its own.
type job struct {
	at time.Time
	do func(context.Context) // gives its locks back by itself, through release
	// lock keeps jobs on one store, or prompts to one person, one after the other.
	lock string
	// user is whose stores the job touches, if it does; his inventory waits.
	user      string
	authority bool
	entry     *entry
}

func (j job) lastTried() time.Time {
	if j.entry == nil {
		return time.Time{}
	}
	return j.entry.tried
}

// pass plans, starts what is due, and says how long to sleep.
func (g *Engine) pass(ctx context.Context) time.Duration {
	g.mu.Lock()
	now := g.now()
	g.takeAttached(now)
	if g.dirty || apart(now, g.planned) >= 10*g.Timing.Look {
		g.planNow()
	}
	g.tellEnding(now)
	next := now.Add(g.Timing.Sleep)
	list := g.jobs(now)
	if g.gate.failures > 0 { // one at a time tries: not always the same
		slices.SortStableFunc(list, func(a, b job) int { return a.lastTried().Compare(b.lastTried()) })
	}
	for _, j := range list {
		switch {
		case j.at.After(now):
			if j.at.Before(next) {
				next = j.at
			}
		case g.free(j):
			g.start(ctx, j, now)
		}
	}
	g.sendNotices(ctx)
	g.mu.Unlock() // without waking ourselves
	return max(next.Sub(now), 0)
}

// jobs lists what there is to do and when, oldest enrollment first. Callers hold mu.
func (g *Engine) jobs(now time.Time) []job {
	var list []job
	for _, n := range g.order {
		if n.busy {
			continue
		}
		if j, ok := g.jobFor(n, now); ok {
			list = append(list, j)
		}
	}
	list = append(list, g.inventoryJobs(now)...)
	return append(list, g.discardJobs(now)...)
}

func (g *Engine) jobFor(n *entry, now time.Time) (job, bool) {
	switch {
	case !g.hasPolicy: // without its anchors every chain would be refused, and every proof fail
	case n.e.inProgress() && g.Rebuilding: // it may be further than the record says: answered, requested, outrun
	case n.e.inProgress():
		return g.stepJob(n, now)
	case n.e.State == Active || n.e.State == Kept:
		return g.careJob(n, now)
	}
	return job{}, false
}

// stepJob is the next step of an enrollment, if it can be taken at some time
// without being woken.
func (g *Engine) stepJob(n *entry, now time.Time) (job, bool) {
	st, ok := stepFrom(n.e.State)
	if !ok || n.e.Store == "" {
		return job{}, false
	}
	if st.needs != needsAuthority && (st.needs == needsStore || g.mustAsk(n.e)) {
		if _, present := g.Sessions.Session(n.e.Assignment.User); !present {
			g.noteAbsent(n)
			return job{}, false
		}
	}
	at, ok := g.dueAt(n, now)
	if !ok {
		return job{}, false
	}
	j := job{at: at, entry: n, do: func(ctx context.Context) { g.runStep(ctx, n, st) }}
	switch st.needs {
	case needsAuthority:
		j.authority = true
		if open := g.gate.open(now, g.Timing.longest()); open.After(j.at) {
			j.at = open
		}
		if quota := g.quota(n, now); quota.After(j.at) {
			j.at = quota
		}
	case needsPerson:
		j.lock = "prompt " + n.e.Assignment.User
	case needsStore:
		j.user, j.lock = n.e.Assignment.User, storeLock(n.e)
	}
	return j, true
}

// longest is longer than any wait that is ever set on purpose.
func (t Timing) longest() time.Duration {
	return max(t.MaxRetryAfter, t.BackoffCap, t.OutageCap, t.WaitRecheck, t.PostponeFor, t.PollPending) + time.Minute
}

func storeLock(e Enrollment) string { return "store " + e.Assignment.User + " " + e.Store }

// dueAt is when a step may be tried: its own deadline, but never sooner than the
// floor allows, whatever woke it. False: only an event wakes it.
func (g *Engine) dueAt(n *entry, now time.Time) (time.Time, bool) {
	at := sane(n.e.NextAttempt, now, g.Timing.longest())
	waits := n.e.Problem != nil && n.e.Problem.Kind == Waiting
	switch {
	case n.woken:
		at = now
	case waits && n.e.Problem.Code == CodeUserAbsent: // he is there, or we would not ask
		at = sane(n.tried.Add(g.Timing.Look), now, g.Timing.Look)
	case waits && n.e.NextAttempt.IsZero():
		return at, false
	}
	if n.triedIn == n.e.State {
		if floor := sane(n.tried.Add(g.Timing.Floor), now, g.Timing.Floor); floor.After(at) {
			at = floor
		}
	}
	return at, true
}

// quota is when the enrollment may call the authority again.
func (g *Engine) quota(n *entry, now time.Time) time.Time {
	if apart(now, n.callsDay) >= day {
		n.callsDay, n.calls = now, 0
	}
	if n.calls < g.Limits.RequestsPerDay {
		return now
	}
	return n.callsDay.Add(day)
}

func (g *Engine) free(j job) bool {
	if j.lock != "" && g.held[j.lock] || j.authority && g.gate.full(g.Limits.Requests) {
		return false
	}
	return j.user == "" || !g.userOf(j.user).reading
}

// start runs a job in a goroutine of its own. Callers hold mu.
func (g *Engine) start(ctx context.Context, j job, now time.Time) {
	if j.lock != "" {
		g.held[j.lock] = true
	}
	if j.user != "" {
		g.userOf(j.user).working++
	}
	if j.authority {
		g.gate.inFlight++
		j.entry.calls++
	}
	if n := j.entry; n != nil {
		n.busy, n.woken, n.tried, n.triedIn = true, false, now, n.e.State
	}
	g.flights.Go(func() {
		defer g.release(j)
		j.do(ctx)
	})
}

// release gives back what start took, and is the one place that catches a panic.
func (g *Engine) release(j job) {
	trouble := recover()
	g.mu.Lock()
	if j.lock != "" {
		delete(g.held, j.lock)
	}
	if j.user != "" {
		g.userOf(j.user).working--
	}
	if j.authority {
		g.gate.inFlight--
	}
	if j.entry != nil {
		j.entry.busy = false
		g.dirty, j.entry.outdated = g.dirty || j.entry.outdated, false
	}
	if trouble != nil {
		g.stumbled(j, trouble)
	}
	g.unlock()
}

// stumbled: an error of our own must neither end the service nor repeat at once.
func (g *Engine) stumbled(j job, trouble any) {
	if j.entry == nil {
		g.Log.Error("job ended in panic", "error", fmt.Sprint(trouble))
		return
	}
	j.entry.e.NextProof = g.now().Add(proofRetry)
	g.hold(j.entry, &Error{Kind: Transient, Code: CodeInternal, Err: fmt.Errorf("panic: %v", trouble),
		Hint: "The agent stumbled over an error of its own and tries again. Tell the administrator."})
}

// runStep takes one step and puts its outcome on record.
func (g *Engine) runStep(ctx context.Context, n *entry, st step) {
	g.mu.Lock()
	e := n.e
	g.mu.Unlock()
	if e.State != st.from {
		return
	}
	limit := g.Timing.StepTimeout
	if st.needs == needsPerson {
		limit = g.Timing.PromptTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	mut, err := st.do(g, bounded, e)
	cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil && err != nil {
		n.woken = true
		return // shutting down; the step is repeated
	}
	if st.needs == needsAuthority {
		g.noteAuthority(err)
	}
	if n.e.State != st.from {
		return // ended meanwhile
	}
	if err == nil {
		err = g.advance(n, st, mut)
		if err != nil {
			g.recordFailed(n, err)
		}
		return
	}
	var told []Event
	if mut != nil { // what was learned although the step failed
		e := n.e
		mut(&e)
		g.put(e)
		if st.needs == needsPerson {
			told = g.verdictTold(e, e.Consent.Verdict)
		}
	}
	g.hold(n, err, told...)
}

// noteAuthority moves the brake: an answer opens it. A rejected certificate may
// have been looked at again without a call and says nothing.
func (g *Engine) noteAuthority(err error) {
	if err == nil {
		g.gate.failures = 0
		return
	}
	switch x := AsError(err); x.Code {
	case CodeControlUnreachable, CodeControlOverloaded:
		g.gate.failures++
		g.gate.until = g.now().Add(g.backoff(g.gate.failures, g.Timing.OutageCap, x.RetryAfter))
	case CodeCertificateRejected:
	default:
		g.gate.failures = 0
	}
}

// noteAbsent says once that the user must log in.
func (g *Engine) noteAbsent(n *entry) {
	if p := n.e.Problem; p != nil {
		// A record that cannot be written is not tried at each look.
		unwritable := p.Code == CodeRecordFailed && sane(n.e.NextAttempt, g.now(), g.Timing.longest()).After(g.now())
		if p.Code == CodeUserAbsent || p.Code == CodeConsentDeclined || unwritable {
			return
		}
	}
	e := n.e
	x := errAbsent()
	e.Problem, e.NextAttempt = g.problem(e, Waiting, x), time.Time{}
	g.keep(e)
}

// Ready says that the authority now has an answer for these references. Limits
// hold all the same.
func (g *Engine) Ready(references []string) {
	g.mu.Lock()
	defer g.unlock()
	for _, n := range g.submitted(references) {
		n.woken = true
	}
}

// Confirmed says that the authority took the code that a person gave. As after
// his consent, the floor for retries does not hold the next question up.
func (g *Engine) Confirmed(reference string) {
	g.mu.Lock()
	defer g.unlock()
	for _, n := range g.submitted([]string{reference}) {
		n.woken, n.tried = true, time.Time{}
	}
}

// submitted are the enrollments that the authority knows by these references.
// Callers hold mu.
func (g *Engine) submitted(references []string) (all []*entry) {
	for _, n := range g.order {
		if n.e.Reference != "" && n.e.State == Submitted && slices.Contains(references, n.e.Reference) {
			all = append(all, n)
		}
	}
	return all
}
