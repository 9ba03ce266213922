package enroll

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// hold puts on record why a step came to no end, by the remedy of its error, and
// told with it.
// Callers hold mu.
func (g *Engine) hold(n *entry, err error, told ...Event) {
	x := AsError(err)
	if errors.Is(err, context.DeadlineExceeded) && x.Code == CodeInternal {
		x = &Error{Kind: Transient, Code: CodeInternal, Err: err, Hint: "It took too long. The agent tries again."}
	}
	kind := g.remedy(n.e, x)
	e := n.e
	now := g.now()
	e.Problem = g.problem(e, kind, x)
	level := slog.LevelWarn
	if kind == Waiting {
		level = slog.LevelInfo
	}
	g.Log.Log(context.Background(), level, "step held up", "enrollment", e.ID, "user", e.Assignment.User, "state", string(n.e.State),
		"kind", string(kind), "code", string(x.Code), "error", x.Error())
	switch kind {
	case Waiting:
		e.NextAttempt = g.lookAgain(e, x, now)
	case Final:
		g.end(e, x)
		return
	default:
		e.Attempts++
		e.NextAttempt = now.Add(g.backoff(e.Attempts, g.Timing.BackoffCap, x.RetryAfter))
		if x.Code == CodeCertificateRejected && (n.e.Problem == nil || n.e.Problem.Code != x.Code) {
			told = append(told, g.event(EventRejected, e, false, "code", string(x.Code))) // once, although it may pass later
		}
	}
	g.keep(e, told...)
}

// remedy corrects the kind where the engine knows better.
func (g *Engine) remedy(e Enrollment, x *Error) Kind {
	switch {
	case x.Code == CodeConsentDeclined:
		return Waiting // can be taken back
	case x.Code == CodeCertificateRejected && x.Kind == Transient && g.stale(e):
		return Final
	case x.Kind == Final && e.State.rank() >= Issued.rank() && x.Code != CodeKeyMissing && x.Code != CodeCertificateRejected:
		return Transient // a certificate that is there is not given up
	case x.Kind == Waiting || x.Kind == Final:
		return x.Kind
	}
	return Transient
}

// stale says that a certificate failed a passing check for too long.
func (g *Engine) stale(e Enrollment) bool {
	return e.Problem != nil && e.Problem.Code == CodeCertificateRejected &&
		apart(g.now(), e.Problem.Since) >= g.Timing.OverPause
}

// problem keeps the time since when the same thing is wrong.
func (g *Engine) problem(e Enrollment, kind Kind, x *Error) *Problem {
	p := &Problem{Kind: kind, Code: x.Code, Hint: x.Hint, Since: g.now()}
	if x.Err != nil {
		p.Detail = x.Err.Error()
	}
	if e.Problem != nil && e.Problem.Code == x.Code {
		p.Since = e.Problem.Since
	}
	return p
}

// lookAgain is when to look again at what waits; zero is never, until it is woken.
func (g *Engine) lookAgain(e Enrollment, x *Error, now time.Time) time.Time {
	switch x.Code {
	case CodeConsentDeclined, CodeUserAbsent:
		return time.Time{}
	case CodeConsentPostponed:
		return e.Consent.AskAgain
	default:
	}
	wait := g.Timing.WaitRecheck
	if x.RetryAfter > 0 {
		wait = min(x.RetryAfter, g.Timing.MaxRetryAfter)
	}
	return now.Add(max(wait, g.Timing.Floor))
}

// end closes an enrollment without a certificate. Callers hold mu.
func (g *Engine) end(e Enrollment, x *Error) {
	e.State, e.Changed, e.NextAttempt = Over, g.now(), time.Time{}
	code := EventEnded
	switch x.Code {
	case CodeCertificateRejected:
		code = EventRejected
	case CodeRequestRefused, CodeControlRejected:
		code = EventRefused
	default:
	}
	if !g.keep(e, g.event(code, e, false, "code", string(x.Code))) {
		return
	}
	if e.Replaces == "" && code != EventEnded {
		g.notify(e, NoticeRefused)
	}
}

// keep commits; if the record cannot be written, memory keeps the state that is
// on record, with the problem, and the step is repeated later.
func (g *Engine) keep(e Enrollment, told ...Event) bool {
	err := g.save(e, told...)
	if err == nil {
		return true
	}
	g.recordFailed(g.byID[e.ID], err)
	return false
}

// recordFailed notes in memory that the record cannot be written.
func (g *Engine) recordFailed(n *entry, err error) {
	x := AsError(err)
	n.e.Problem = g.problem(n.e, Transient, x)
	n.e.Attempts++
	n.e.NextAttempt = g.now().Add(g.backoff(n.e.Attempts, g.Timing.BackoffCap, 0))
	g.Log.Error("record not written", "enrollment", n.e.ID, "user", n.e.Assignment.User, "error", x.Error())
	g.changed()
}
