package enroll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// defaultPostponements is how often "later" may be said if policy does not say;
// a negative MaxPostponements means never.
const defaultPostponements = 5

func (e Enrollment) postponementsLeft() int {
	most := e.Assignment.MaxPostponements
	if most == 0 {
		most = defaultPostponements
	}
	return max(most-e.Consent.Postponed, 0)
}

// mustAsk says that the person has still to be asked.
func (g *Engine) mustAsk(e Enrollment) bool {
	return e.State == Wanted && e.Consent.Verdict != Approve && !e.consentFree()
}

func (e Enrollment) consentFree() bool {
	m := e.Assignment.Consent
	return e.Consent.NotNeeded || m == ConsentSilent || m == ConsentNotify
}

// firstConsent is what is known of the person's will when an enrollment begins.
// An employee meets the agent once: a renewal, and whoever asks himself, is not
// asked again.
// What he said of the same mailbox counts for a second store too. Callers hold mu.
func (g *Engine) firstConsent(e Enrollment) Consent {
	if e.Replaces != "" || e.Reason == ReasonPerson {
		return Consent{NotNeeded: true, At: g.now()}
	}
	for _, n := range g.order {
		switch {
		case n.e.Assignment.User != e.Assignment.User || foldMailbox(n.e.Mailbox()) != foldMailbox(e.Mailbox()):
		case n.e.Consent.Verdict == Approve:
			return Consent{NotNeeded: true, At: g.now()}
		case n.e.Consent.Verdict != "" && sameQuestion(n.e, e):
			return n.e.Consent
		}
	}
	return Consent{}
}

// askConsent asks the person, unless policy says otherwise or he has spoken.
func (g *Engine) askConsent(ctx context.Context, e Enrollment) (change, error) {
	if e.consentFree() {
		if e.Assignment.Consent == ConsentNotify && !e.Consent.NotNeeded {
			g.mu.Lock()
			g.notify(e, NoticeEnrolling)
			g.mu.Unlock()
		}
		return func(e *Enrollment) { e.Consent.NotNeeded, e.Consent.At = true, g.now() }, nil
	}
	switch e.Consent.Verdict {
	case Approve:
		return nil, nil
	case Decline:
		return nil, declined()
	case Later:
		if sane(e.Consent.AskAgain, g.now(), g.Timing.PostponeFor).After(g.now()) {
			return nil, postponed()
		}
	}
	return g.ask(ctx, e)
}

func (g *Engine) ask(ctx context.Context, e Enrollment) (change, error) {
	s, err := g.session(e)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := g.openPrompt(e, cancel)
	verdict, err := s.Ask(ctx, q)
	if decided, has := g.closePrompt(e.ID); has { // the command line was quicker
		if decided.Verdict != Approve {
			return nil, refusal(decided.Verdict)
		}
		return nil, nil
	}
	if err != nil {
		return nil, unanswered(err)
	}
	return g.answered(e, verdict)
}

// unanswered: nobody clicked in time. That is no "later" of the person's.
func unanswered(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Kind: Waiting, Code: CodeConsentPending, Err: err,
		Hint: "The question was not answered. It will be asked again; \"smime-agent approve\" answers it now."}
}

// answered makes the verdict in the dialog a change, for all enrollments that
// the same question covers.
func (g *Engine) answered(e Enrollment, v Verdict) (change, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case v != Approve && v != Decline && v != Later:
		return nil, fmt.Errorf("ask: verdict %q", v)
	case v == Later && e.postponementsLeft() == 0: // a dialog without that answer was closed
		return nil, unanswered(context.DeadlineExceeded)
	}
	for _, n := range g.order {
		if n.e.ID == e.ID || !sameQuestion(n.e, e) || n.busy {
			continue
		}
		if err := g.decide(n, v); err != nil {
			return nil, err
		}
	}
	mut := func(e *Enrollment) { *e = g.withVerdict(*e, v) }
	if v == Approve {
		return mut, nil
	}
	return mut, refusal(v)
}

// sameQuestion: one person is asked once for one mailbox, whatever the stores.
func sameQuestion(a, b Enrollment) bool {
	return a.State == Wanted && b.State == Wanted && a.Assignment.User == b.Assignment.User &&
		foldMailbox(a.Mailbox()) == foldMailbox(b.Mailbox()) && !a.consentFree() && !b.consentFree()
}

func (g *Engine) openPrompt(e Enrollment, cancel context.CancelFunc) Question {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.byID[e.ID]
	n.asking, n.decided = cancel, false
	pending := n.e
	pending.Problem = g.problem(pending, Waiting, &Error{Code: CodeConsentPending,
		Hint: "The question is on the screen and waits for an answer."})
	g.keep(pending)
	return Question{
		ID: e.ID, Organization: g.policy.Organization, Contact: g.policy.Contact, Mailbox: e.Mailbox(),
		Reason: e.Reason, Note: e.Assignment.Note, PostponementsLeft: e.postponementsLeft(),
		ProgramsAsk: g.programsAsk(e),
	}
}

func (g *Engine) closePrompt(id ID) (Consent, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.byID[id]
	n.asking = nil
	return n.e.Consent, n.decided
}

func declined() *Error {
	return &Error{Kind: Waiting, Code: CodeConsentDeclined,
		Hint: "The certificate was declined. \"smime-agent approve\" takes that back."}
}

func postponed() *Error {
	return &Error{Kind: Waiting, Code: CodeConsentPostponed,
		Hint: "The question was put off. \"smime-agent approve\" answers it now."}
}

func refusal(v Verdict) *Error {
	if v == Decline {
		return declined()
	}
	return postponed()
}

func (g *Engine) withVerdict(e Enrollment, v Verdict) Enrollment {
	e.Consent.Verdict, e.Consent.At, e.Consent.AskAgain = v, g.now(), time.Time{}
	if v == Later {
		e.Consent.Postponed++
		e.Consent.AskAgain = e.Consent.At.Add(g.Timing.PostponeFor)
	}
	return e
}

// verdictTold tells of a verdict that is not told of by the step's own event.
func (g *Engine) verdictTold(e Enrollment, v Verdict) []Event {
	switch v {
	case Decline:
		return []Event{g.event(EventDeclined, e, true)}
	case Later:
		return []Event{g.event(EventPostponed, e, true)}
	case Approve: // the step's own event tells
	}
	return nil
}

// Decide takes a person's verdict that came another way than through the
// prompt, which is closed if it is open. A decline can be taken back at any
// time by an approval. target is an ID, a mailbox, or empty for all that wait
// for this user; an empty user stands for all users. It gives what was decided;
// [ErrNoneFits] if nothing waits for a verdict.
func (g *Engine) Decide(user, target string, v Verdict) ([]ID, error) {
	if v != Approve && v != Decline && v != Later {
		return nil, fmt.Errorf("decide: verdict %q", v)
	}
	g.mu.Lock()
	defer g.unlock()
	var done []ID
	for _, n := range g.meant(Filter{User: user, Target: target}) {
		if v == Later && n.e.postponementsLeft() == 0 {
			return done, &Error{Kind: Final, Code: CodeConsentPending,
				Hint: "This question cannot be put off again. Approve or decline it."}
		}
		if err := g.decide(n, v); err != nil {
			return done, err
		}
		done = append(done, n.e.ID)
	}
	if len(done) == 0 {
		return nil, ErrNoneFits
	}
	return done, nil
}

// meant are the enrollments that wait for a verdict, fit, or are covered by the
// same question as one that does. Callers hold mu.
func (g *Engine) meant(f Filter) []*entry {
	var fit, all []*entry
	for _, n := range g.order {
		if g.mustAsk(n.e) && f.fits(n.e) {
			fit = append(fit, n)
		}
	}
	for _, n := range g.order {
		if slices.ContainsFunc(fit, func(m *entry) bool { return m == n || sameQuestion(m.e, n.e) }) {
			all = append(all, n)
		}
	}
	return all
}

// given is what an approval makes of an enrollment.
var given = step{from: Wanted, to: Consented, event: EventConsent}

// decide puts a verdict on record and closes an open prompt. An approval is at once
// the step that waits for it, unless that is being taken just now. Callers hold mu.
func (g *Engine) decide(n *entry, v Verdict) error {
	waits := (!n.busy || n.asking != nil) && n.e.Store != "" && g.hasPolicy && !g.Rebuilding
	if v == Approve && waits {
		if err := g.advance(n, given, func(e *Enrollment) { *e = g.withVerdict(*e, v) }); err != nil {
			return err
		}
	} else if err := g.noteVerdict(n, v); err != nil {
		return err
	}
	if n.asking != nil {
		n.decided = true
		n.asking()
	}
	return nil
}

// noteVerdict leaves the step to be taken. Callers hold mu.
func (g *Engine) noteVerdict(n *entry, v Verdict) error {
	e := g.withVerdict(n.e, v)
	e.Problem, e.NextAttempt = nil, time.Time{}
	if v != Approve {
		e.Problem = g.problem(e, Waiting, refusal(v))
		e.NextAttempt = e.Consent.AskAgain
	}
	if err := g.save(e, g.verdictTold(e, v)...); err != nil {
		return err
	}
	if v == Approve {
		// The floor is for retries; a person's word is something new.
		n.woken, n.tried = true, time.Time{}
	}
	return nil
}
