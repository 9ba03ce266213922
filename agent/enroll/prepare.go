package enroll

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"
)

// MailWord is what policy says of a switch in the mail programs.
type MailWord string

// The words.
const (
	MailAlways MailWord = "always"
	MailNever  MailWord = "never"
	// MailUser leaves the switch, and a certificate that the person chose, alone.
	MailUser MailWord = "user-decides"
)

// MailRule is what policy wants of the mail programs of a mailbox. A rule that
// names no programs leaves all of them alone.
type MailRule struct {
	// Programs are the names of those that are made ready ("thunderbird"); "*" is all.
	Programs  []string `json:"programs,omitempty"`
	Sign      MailWord `json:"sign,omitempty"`
	Encrypt   MailWord `json:"encrypt,omitempty"`
	ClearSign MailWord `json:"clear_sign,omitempty"`
	// Hash and Cipher ("sha-256", "aes-256") are empty where the program decides.
	Hash   string `json:"hash,omitempty"`
	Cipher string `json:"cipher,omitempty"`
}

// Manages says that the rule names a program.
func (r MailRule) Manages(program string) bool {
	return slices.Contains(r.Programs, "*") || slices.Contains(r.Programs, program)
}

// MailState is how far one account of a mail program is.
type MailState string

// The states of an account.
const (
	MailReady MailState = "ready" // it has what policy wants, or the person's own choice where policy lets him
	// MailRestart: written, and known to the program after its next start.
	MailRestart MailState = "restart"
	// MailBusy: the program is open and would overwrite it; written when it is closed.
	MailBusy    MailState = "busy"
	MailManaged MailState = "managed" // other management holds it at something else
	MailFailed  MailState = "failed"
	// MailOtherStore: the program takes certificates from another store only.
	MailOtherStore MailState = "other-store"
	// MailUndone: it has again what it had before the agent came.
	MailUndone MailState = "undone"
)

// MailAccount is one account of a mail program as it was last seen.
type MailAccount struct {
	// Program is the stable word, Title what people call it; ID names the account in it.
	Program string    `json:"program"`
	Title   string    `json:"title,omitempty"`
	ID      string    `json:"id,omitempty"`
	Mailbox string    `json:"mailbox,omitempty"`
	Store   string    `json:"store,omitempty"`
	State   MailState `json:"state"`
	// ByHand are settings that differ from policy and that only the person can set;
	// Own are those that are the person's own choice, which policy lets him have.
	ByHand []string `json:"by_hand,omitempty"`
	Own    []string `json:"own,omitempty"`
	// Detail is for the log.
	Detail string `json:"detail,omitempty"`
	// Since is when the account came into its state.
	Since time.Time `json:"since,omitzero"`
	// Changed says that something was written just now.
	Changed bool `json:"-"`
}

// Preparation is what was last done in the mail programs for a credential.
type Preparation struct {
	At time.Time `json:"at"`
	// Rule is what it followed.
	Rule     MailRule      `json:"rule"`
	Accounts []MailAccount `json:"accounts,omitempty"`
	// Problem says why the programs could not be looked at.
	Problem  *Problem `json:"problem,omitempty"`
	Attempts int      `json:"attempts,omitempty"`
	// Undone says that somebody wants what was there before the agent came. It holds
	// for as long as policy says what Rule does; see [Engine.UndoMail].
	Undone bool `json:"undone,omitempty"`
}

// PrepareWanted is what [Keeper.Prepare] needs.
type PrepareWanted struct {
	ID        ID
	Store     string
	Mailboxes []string
	Chain     [][]byte
	Sign      bool
	Encrypt   bool
	Rule      MailRule
	// Earlier are certificates (DER) of the agent's that this one follows.
	Earlier [][]byte
	// Prepared are accounts ([MailAccount.Key]) that once had what the agent set:
	// another certificate there is the person's choice.
	Prepared []string
	// Undo wants what was there before the agent came, in place of all else.
	Undo bool
}

// Key names the account among all programs.
func (a MailAccount) Key() string { return a.Program + " " + a.ID }

// prepare makes the mail programs use the credential. Trouble with a program
// holds nothing up, for the credential is good: it stands with the account, shows
// as a condition, and is tried again.
func (g *Engine) prepare(ctx context.Context, e Enrollment) (change, error) {
	s, err := g.session(e)
	if err != nil {
		return nil, err
	}
	p, err := g.prepareWith(ctx, s, e)
	if err != nil {
		return nil, err
	}
	return func(e *Enrollment) {
		rule := g.mailRule(*e)
		held := g.heldUndone(*e, rule)
		e.Mail, e.NextMail = p, g.nextMail(e.ID, p)
		if held == p.wishes() {
			return
		}
		e.Mail, e.NextMail = nil, g.now() // somebody wants it otherwise meanwhile
		if held {
			e.Mail = &Preparation{At: g.now(), Rule: rule, Undone: true}
		}
	}, nil
}

// leavesMailAlone says that policy names no program, and nobody wants one put back.
// Callers hold mu.
func (g *Engine) leavesMailAlone(e Enrollment) bool {
	rule := g.mailRule(e)
	return len(rule.Programs) == 0 && !g.heldUndone(e, rule)
}

// prepareWith gives an error only where nobody was there to do it; nil if policy
// leaves mail programs alone.
func (g *Engine) prepareWith(ctx context.Context, s Session, e Enrollment) (*Preparation, error) {
	w := g.prepareWanted(e)
	p := &Preparation{At: g.now(), Rule: w.Rule, Undone: w.Undo}
	switch {
	case w.Undo:
		w.Rule.Programs = []string{"*"} // policy may name none any more
	case len(w.Rule.Programs) == 0, e.State == Active && e.ends():
		return nil, nil
	}
	accounts, err := s.Prepare(ctx, w)
	if x := AsError(err); err != nil {
		if x.Code == CodeUserAbsent || errors.Is(ctx.Err(), context.Canceled) {
			return nil, err
		}
		p.Problem = g.problem(Enrollment{Problem: mailProblem(e)}, Transient, &Error{Code: CodeMailFailed, Hint: x.Hint, Err: err})
		p.Attempts = mailAttempts(e) + 1
		if e.Mail != nil {
			p.Accounts = e.Mail.Accounts
		}
		return p, nil
	}
	p.Accounts = accounts
	p.keepSince(e.Mail)
	if slices.ContainsFunc(accounts, func(a MailAccount) bool { return a.State == MailFailed }) {
		p.Attempts = mailAttempts(e) + 1
	}
	return p, nil
}

func mailProblem(e Enrollment) *Problem {
	if e.Mail == nil {
		return nil
	}
	return e.Mail.Problem
}

func mailAttempts(e Enrollment) int {
	if e.Mail == nil {
		return 0
	}
	return e.Mail.Attempts
}

// keepSince lets an account that is as it was keep its moment.
func (p *Preparation) keepSince(before *Preparation) {
	for i := range p.Accounts {
		a := &p.Accounts[i]
		a.Since = p.At
		if before == nil {
			continue
		}
		for _, b := range before.Accounts {
			if b.Key() == a.Key() && b.State == a.State && !b.Since.IsZero() {
				a.Since = b.Since
			}
		}
	}
}

// nextMail is when to look again: daily, sooner where something is to be tried
// again. What a program's close finishes, the session itself sees.
func (g *Engine) nextMail(id ID, p *Preparation) time.Time {
	switch {
	case p != nil && p.Attempts > 0:
		return g.now().Add(bound(proofRetry, g.Timing.ProofInterval, p.Attempts))
	case p.undone():
		return time.Time{}
	}
	return nextProof(id, g.now(), g.Timing.ProofInterval)
}

func (g *Engine) prepareWanted(e Enrollment) PrepareWanted {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := e.Assignment.Profile
	w := PrepareWanted{
		ID: e.KeyName(), Store: e.Store, Mailboxes: e.Assignment.Mailboxes, Chain: e.Chain,
		Sign: p.Sign, Encrypt: p.Encrypt, Rule: g.mailRule(e),
	}
	boxes := mailboxSet(e.Assignment.Mailboxes)
	for _, n := range g.order {
		o := n.e
		if o.Assignment.User != e.Assignment.User || !slices.ContainsFunc(o.Assignment.Mailboxes, func(m string) bool { return boxes[foldMailbox(m)] }) {
			continue
		}
		if o.ID != e.ID && len(o.Chain) > 0 {
			w.Earlier = append(w.Earlier, o.Chain[0])
		}
		if q := o.Assignment.Profile; o.Mail != nil && q.Sign == p.Sign && q.Encrypt == p.Encrypt {
			w.Prepared = append(w.Prepared, o.Mail.prepared()...)
		}
	}
	slices.Sort(w.Prepared)
	w.Prepared, w.Undo = slices.Compact(w.Prepared), g.heldUndone(e, w.Rule)
	return w
}

// prepared names the accounts that had what the agent set.
func (p *Preparation) prepared() []string {
	var keys []string
	for _, a := range p.Accounts {
		if a.State == MailReady || a.State == MailRestart {
			keys = append(keys, a.Key())
		}
	}
	return keys
}

// mailRule is what policy now says of the mail programs; one that does not know the
// credential says nothing against an undo. Callers hold mu.
func (g *Engine) mailRule(e Enrollment) MailRule {
	if a, ok := g.assignmentFor(e); ok {
		return a.Mail
	}
	if e.Mail.wishes() {
		return e.Mail.Rule
	}
	return MailRule{}
}

// ends says that no program is to begin using it.
func (e Enrollment) ends() bool { return e.Unwanted || e.Revoked }

// mailAt is when the mail programs are to be looked at again, if ever. Callers
// hold mu.
func (g *Engine) mailAt(e Enrollment, now time.Time) (time.Time, bool) {
	if e.State != Active || e.ends() && !e.Mail.wishes() || len(e.Chain) == 0 {
		return time.Time{}, false
	}
	rule := g.mailRule(e)
	switch {
	case e.Mail == nil:
		return now, len(rule.Programs) > 0
	case !reflect.DeepEqual(rule, e.Mail.Rule):
		return now, true
	case e.Mail.undone():
		return time.Time{}, false
	}
	return sane(e.NextMail, now, 2*g.Timing.ProofInterval), true
}

// prepareAgain is the look that finds drift: what policy says always or never is
// set again, and what the person may decide stays.
func (g *Engine) prepareAgain(ctx context.Context, n *entry) {
	g.mu.Lock()
	e := n.e
	g.mu.Unlock()
	s, err := g.session(e)
	if err != nil {
		return // absent is no fault of the credential
	}
	ctx, cancel := context.WithTimeout(ctx, g.Timing.StepTimeout)
	defer cancel()
	p, err := g.prepareWith(ctx, s, e)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		n.e.NextMail = g.now().Add(g.Timing.ProofInterval / 4)
		return
	}
	if n.e.State != e.State || g.heldUndone(n.e, g.mailRule(n.e)) != p.wishes() {
		return // replaced meanwhile, or somebody wants it otherwise: another look follows
	}
	e = n.e
	e.Mail, e.NextMail = p, g.nextMail(e.ID, p)
	var told []Event
	switch {
	case !p.changed():
	case p.Undone:
		told = append(told, g.event(EventUndone, e, true))
	default:
		told = append(told, g.event(EventPrepared, e, true, "again", "true"))
	}
	g.keepProof(n, e, told...)
}

func (p *Preparation) found() bool { return p != nil && len(p.Accounts) > 0 && !p.Undone }

func (p *Preparation) changed() bool {
	return p != nil && slices.ContainsFunc(p.Accounts, func(a MailAccount) bool { return a.Changed })
}

// mailSoon has the mail programs looked at again after a change that the session
// saw. Callers hold mu.
func (g *Engine) mailSoon(n *entry) {
	if n.e.State == Active && n.e.Mail != nil {
		n.e.NextMail = g.now()
	}
}
