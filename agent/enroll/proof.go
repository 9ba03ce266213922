package enroll

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// proofRetry is when a failed proof is tried again the first time.
const proofRetry = time.Hour

func (g *Engine) proofWanted(e Enrollment) ProofWanted {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := e.Assignment.Profile
	kept := e.State == Kept
	return ProofWanted{
		ID: e.KeyName(), Store: e.Store, Mailbox: e.Mailbox(), Chain: e.Chain, Anchors: g.policy.Anchors,
		Sign: p.Sign && !kept, Encrypt: p.Encrypt, Kept: kept, Now: g.now(), Modules: g.modules(e),
	}
}

// prove is the last step: nothing is active that did not work once.
func (g *Engine) prove(ctx context.Context, e Enrollment) (change, error) {
	s, err := g.session(e)
	if err != nil {
		return nil, err
	}
	if leaf := leafOf(e); leaf == nil || g.now().After(leaf.NotAfter) {
		return nil, rejected(&ChainError{Check: "time", Passing: true, Err: errors.New("ended before it was proved")})
	}
	p, err := s.Prove(ctx, g.proofWanted(e))
	if err != nil {
		return nil, err
	}
	mut := func(e *Enrollment) {
		e.Proof = &p
		e.NextProof = nextProof(e.ID, g.now(), g.Timing.ProofInterval)
	}
	if !p.OK() {
		return mut, proofFailed(Transient, CodeProofFailed, p)
	}
	return mut, nil
}

func proofFailed(k Kind, c Code, p Proof) *Error {
	hint := "The certificate is installed but does not work yet. The agent tries again; see \"smime-agent doctor\"."
	if c == CodeOldKeyUnusable {
		hint = "A key for old mail no longer decrypts. Do not delete anything; see \"smime-agent doctor\"."
	}
	return &Error{Kind: k, Code: c, Hint: hint, Err: errors.New(p.Failure)}
}

// nextProof is the next moment of the enrollment's own phase, at least half an
// interval away: proofs spread over the day, the same way at each look.
func nextProof(id ID, now time.Time, interval time.Duration) time.Time {
	hash := sha256.Sum256([]byte(id))
	phase := time.Duration(unit(hash[:8]) * float64(interval))
	at := now.Truncate(interval).Add(phase).Truncate(time.Second)
	for at.Before(now.Add(interval / 2)) {
		at = at.Add(interval)
	}
	return at
}

// proves says that there is something to prove: a kept key only matters for what
// it decrypts.
func (e Enrollment) proves() bool {
	return len(e.Chain) > 0 && (e.State == Active || e.State == Kept && e.Assignment.Profile.Encrypt)
}

// careJob is what an active or kept credential needs next: its certificate put
// back, a look at the mail programs, or its daily proof.
func (g *Engine) careJob(n *entry, now time.Time) (job, bool) {
	e := n.e
	if _, present := g.Sessions.Session(e.Assignment.User); !present || len(e.Chain) == 0 {
		return job{}, false
	}
	j := job{entry: n, user: e.Assignment.User, lock: storeLock(e)}
	switch {
	case n.bare:
		j.at, j.do = now, func(ctx context.Context) { g.reinstall(ctx, n) }
	case e.proves() && !n.missing:
		j.at, j.do = sane(e.NextProof, now, 2*g.Timing.ProofInterval), func(ctx context.Context) { g.proveAgain(ctx, n) }
	}
	if at, ok := g.mailAt(e, now); ok && !n.bare && !n.missing && (j.do == nil || at.Before(j.at)) {
		j.at, j.do = at, func(ctx context.Context) { g.prepareAgain(ctx, n) }
	}
	if j.do == nil {
		return job{}, false
	}
	if n.triedIn == e.State {
		if floor := sane(n.tried.Add(g.Timing.Floor), now, g.Timing.Floor); floor.After(j.at) {
			j.at = floor
		}
	}
	return j, true
}

// reinstall puts a certificate back beside the key that still has its place.
func (g *Engine) reinstall(ctx context.Context, n *entry) {
	g.mu.Lock()
	n.bare = false
	e, wanted := n.e, g.installWanted(n.e)
	g.mu.Unlock()
	s, err := g.session(e)
	if err != nil {
		return // the next inventory finds it again
	}
	ctx, cancel := context.WithTimeout(ctx, g.Timing.StepTimeout)
	defer cancel()
	err = s.Install(ctx, wanted)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.Log.Warn("certificate not put back", "enrollment", e.ID, "user", e.Assignment.User, "error", err.Error())
		return
	}
	g.tell(g.event(EventInstalled, n.e, true, "again", "true"))
	g.proveSoon(n)
}

// proveAgain is the daily proof.
func (g *Engine) proveAgain(ctx context.Context, n *entry) {
	g.mu.Lock()
	e := n.e
	g.mu.Unlock()
	s, err := g.session(e)
	if err != nil {
		return // absent is no fault of the credential
	}
	ctx, cancel := context.WithTimeout(ctx, g.Timing.StepTimeout)
	defer cancel()
	p, err := s.Prove(ctx, g.proofWanted(e))
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.proofHeld(n, err)
		return
	}
	g.proofDone(n, p)
}

// proofHeld: the proof could not be made. Callers hold mu.
func (g *Engine) proofHeld(n *entry, err error) {
	x := AsError(err)
	e := n.e
	e.NextProof = g.now().Add(g.Timing.ProofInterval / 4)
	switch {
	case x.Code == CodeUserAbsent || errors.Is(err, context.Canceled):
		n.e.NextProof = e.NextProof // not worth a line on record
		return
	case x.Code == CodeKeyMissing:
		g.userOf(e.Assignment.User).due = true // the inventory judges
	default:
		e.Problem = g.problem(e, x.Kind, x)
	}
	g.Log.Warn("proof not made", "enrollment", e.ID, "user", e.Assignment.User, "code", string(x.Code), "error", x.Error())
	g.keepProof(n, e)
}

// proofDone puts a proof on record; an event only tells of a change. Callers hold mu.
func (g *Engine) proofDone(n *entry, p Proof) {
	e := n.e
	news := e.Proof == nil || e.Proof.OK() != p.OK()
	e.Proof = &p
	if p.OK() {
		e.Attempts, e.Problem = 0, nil
		e.NextProof = nextProof(e.ID, g.now(), g.Timing.ProofInterval)
	} else {
		e.Attempts++
		e.NextProof = g.now().Add(bound(proofRetry, g.Timing.ProofInterval, e.Attempts))
		code, kind := CodeProofFailed, Transient
		if e.State == Kept {
			code, kind = CodeOldKeyUnusable, Waiting
		}
		e.Problem = g.problem(e, kind, proofFailed(kind, code, p))
	}
	var told []Event
	if news {
		told = append(told, g.event(EventProved, e, p.OK(), "failure", p.Failure))
	}
	g.keepProof(n, e, told...)
}

// keepProof commits; without a record the proof is made again later.
func (g *Engine) keepProof(n *entry, e Enrollment, told ...Event) {
	dirty := g.dirty
	err := g.save(e, told...)
	g.dirty = dirty // a proof is no reason for anything
	if err != nil {
		g.recordFailed(n, err)
		n.e.NextProof = n.e.NextAttempt
	}
}

// proveSoon makes the next proof due. Callers hold mu.
func (g *Engine) proveSoon(n *entry) { n.e.NextProof = g.now() }

// ProveNow makes the proofs of all kept keys that the filter picks due, and
// gives their enrollments.
func (g *Engine) ProveNow(f Filter) []ID {
	g.mu.Lock()
	defer g.unlock()
	var ids []ID
	for _, n := range g.order {
		if f.fits(n.e) && n.e.proves() {
			g.proveSoon(n)
			ids = append(ids, n.e.ID)
		}
	}
	return ids
}
