package enroll

import (
	"context"
	"errors"
	"reflect"
	"time"
)

// change is what a step makes of its enrollment.
type change func(*Enrollment)

// step leads from one resting place to the next by one outside effect, which
// can be repeated.
type step struct {
	from  State
	do    func(*Engine, context.Context, Enrollment) (change, error)
	to    State
	event EventCode
	// needs says whom the step needs.
	needs need
}

type need int

const (
	needsPerson need = iota // the user's session, for a prompt
	needsStore              // the user's session, for his key store
	needsAuthority
)

// lifecycle is the life of a credential: a straight line.
var lifecycle = []step{
	{Wanted, (*Engine).askConsent, Consented, EventConsent, needsPerson},
	{Consented, (*Engine).makeRequest, Requested, EventKey, needsStore},
	{Requested, (*Engine).submit, Submitted, EventSubmitted, needsAuthority},
	{Submitted, (*Engine).collect, Issued, EventIssued, needsAuthority},
	{Issued, (*Engine).install, Installed, EventInstalled, needsStore},
	{Installed, (*Engine).prepare, Prepared, EventPrepared, needsStore},
	{Prepared, (*Engine).prove, Active, EventProved, needsStore},
}

// stepFrom finds the step that leads on; none from Active, Kept and Over.
func stepFrom(s State) (step, bool) {
	for _, st := range lifecycle {
		if st.from == s {
			return st, true
		}
	}
	return step{}, false
}

// rank orders the states.
func (s State) rank() int {
	for i, st := range []State{Wanted, Consented, Requested, Submitted, Issued, Installed, Prepared, Active, Kept, Over} {
		if st == s {
			return i
		}
	}
	return -1
}

// Before says that an enrollment passes through s before it comes to t.
func (s State) Before(t State) bool { return s.rank() < t.rank() }

// inProgress says that the way leads on.
func (e Enrollment) inProgress() bool { r := e.State.rank(); return r >= 0 && r < Active.rank() }

// KeyName is the name of the key in its store.
func (e Enrollment) KeyName() ID {
	if e.Key != "" {
		return e.Key
	}
	return e.ID
}

func (g *Engine) session(e Enrollment) (Session, error) {
	if s, ok := g.Sessions.Session(e.Assignment.User); ok {
		return s, nil
	}
	return nil, errAbsent()
}

func errAbsent() *Error {
	return &Error{
		Kind: Waiting, Code: CodeUserAbsent,
		Hint: "The user is not logged in. It goes on at the next login.",
	}
}

func (g *Engine) makeRequest(ctx context.Context, e Enrollment) (change, error) {
	s, err := g.session(e)
	if err != nil {
		return nil, err
	}
	a, key := e.Assignment, g.keyFor(e)
	made, err := s.MakeRequest(ctx, RequestWanted{
		ID: e.ID, Store: e.Store, Keys: a.Profile.Keys, Mailboxes: a.Mailboxes, DisplayName: a.DisplayName,
		Sign: a.Profile.Sign, Encrypt: a.Profile.Encrypt, Modules: g.modulesFor(e), ReuseKeyOf: key,
	})
	if err != nil {
		return nil, err
	}
	if _, err := orderedKey(ChainRules{CSR: made.CSR}); err != nil {
		return nil, &Error{Kind: Transient, Code: CodeStoreFailed, Err: err,
			Hint: "The key store gave a request that is not in order. The agent tries again."}
	}
	return func(e *Enrollment) {
		e.Key, e.CSR, e.Algorithm, e.Protection = key, made.CSR, made.Algorithm, made.Protection
	}, nil
}

func (g *Engine) submit(ctx context.Context, e Enrollment) (change, error) {
	a := e.Assignment
	r, err := g.Authority.Submit(ctx, Submission{
		ID: e.ID, CSR: e.CSR, Profile: a.Profile.Name, User: a.User, Mailboxes: a.Mailboxes,
		Store: e.Store, Protection: e.Protection, Replaces: e.Replaces, Reason: e.Reason,
	})
	if err != nil {
		return nil, err
	}
	if r.Reference == "" {
		return nil, &Error{Kind: Transient, Code: CodeControlRejected, Err: errors.New("receipt without reference"),
			Hint: "Central management gave an answer that cannot be used. The agent tries again."}
	}
	return func(e *Enrollment) { e.Reference = r.Reference }, nil
}

func (g *Engine) collect(ctx context.Context, e Enrollment) (change, error) {
	c := g.received(e)
	if len(c.Chain) == 0 {
		var err error
		if c, err = g.Authority.Collect(ctx, e.Reference); err != nil {
			return nil, err
		}
	}
	if len(c.Chain) == 0 {
		return nil, g.pending(c)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	rules := g.rulesFor(e)
	leaf, err := CheckChain(c.Chain, rules)
	n := g.byID[e.ID]
	n.received = Collection{}
	if err != nil {
		x := rejected(err)
		if x.Kind == Transient {
			n.received = c
		}
		return nil, x
	}
	n.believed = belief{rules, c.Chain}
	return func(e *Enrollment) { setChain(e, c.Chain, leaf, c.SuggestedRenewal) }, nil
}

// received is what came before and may pass now, such as a certificate that a
// wrong clock thought expired: that is no reason to ask the authority each time.
func (g *Engine) received(e Enrollment) Collection {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.byID[e.ID]
	if len(n.received.Chain) == 0 || apart(g.now(), n.asked) >= day {
		n.received, n.asked = Collection{}, g.now()
	}
	return n.received
}

// rulesFor is what was ordered. Callers hold mu.
func (g *Engine) rulesFor(e Enrollment) ChainRules {
	a := e.Assignment
	r := ChainRules{
		CSR: e.CSR, Mailboxes: a.Mailboxes, Sign: a.Profile.Sign, Encrypt: a.Profile.Encrypt,
		MaxValidity: a.Profile.MaxValidity, Anchors: g.policy.Anchors, Now: g.now(), Ahead: g.Timing.Ahead,
	}
	for _, n := range g.order {
		if n.e.Assignment.User == a.User && len(n.e.Chain) > 0 {
			r.Earlier = append(r.Earlier, n.e.Chain[0])
		}
	}
	return r
}

// pending says for whom the authority's answer waits.
func (g *Engine) pending(c Collection) *Error {
	e := &Error{Kind: Waiting, RetryAfter: c.RetryAfter}
	if e.RetryAfter <= 0 {
		e.RetryAfter = g.Timing.PollPending
	}
	switch c.WaitsFor {
	case "administrator":
		e.Code, e.Hint = CodeApprovalPending, "The request waits for an administrator's approval."
	case "mailbox":
		e.Code, e.Hint = CodeChallengePending, "A message was sent to the mailbox. Follow what it says."
	default:
		e.Code, e.Hint = CodeAuthorityPending, "The certificate authority is working on the request."
	}
	return e
}

// rejected makes a failed check an error: what may pass later is tried again,
// since a clock can be wrong and an anchor can come with the next policy.
func rejected(err error) *Error {
	e := &Error{Kind: Final, Code: CodeCertificateRejected, Err: err,
		Hint: "The certificate that came is not the one that was ordered and was refused. Tell the administrator."}
	if c, ok := errors.AsType[*ChainError](err); ok && c.Passing {
		e.Kind = Transient
	}
	return e
}

func (g *Engine) install(ctx context.Context, e Enrollment) (change, error) {
	s, err := g.session(e)
	if err != nil {
		return nil, err
	}
	if e.Revoked {
		return nil, rejected(errors.New("revoked before it was installed"))
	}
	g.mu.Lock()
	rules, wanted := g.rulesFor(e), g.installWanted(e)
	just := e.NotAfter.After(rules.Now) && g.byID[e.ID].believed.covers(e.Chain, rules)
	g.mu.Unlock()
	// Days may lie between issue and a login: what is installed is good now.
	if !just {
		if _, err := CheckChain(e.Chain, e.keyRule(rules)); err != nil {
			return nil, rejected(err)
		}
	}
	return nil, s.Install(ctx, wanted)
}

// belief is a chain that was checked, and what it was held against.
type belief struct {
	rules ChainRules
	chain [][]byte
}

// covers says that the same was asked of the same chain within the last seconds. Its
// own leaf is among the earlier ones meanwhile; another that came meanwhile was
// held against it.
func (b belief) covers(chain [][]byte, r ChainRules) bool {
	passed := r.Now.Sub(b.rules.Now)
	r.Now, r.Earlier, b.rules.Now, b.rules.Earlier = time.Time{}, nil, time.Time{}, nil
	return passed >= 0 && passed < 10*time.Second && reflect.DeepEqual(chain, b.chain) && reflect.DeepEqual(r, b.rules)
}

// keyRule lets a credential without a CSR (adopted, or rebuilt) stand for itself:
// its store vouched that key and certificate belong together.
func (e Enrollment) keyRule(r ChainRules) ChainRules {
	if leaf := leafOf(e); len(e.CSR) == 0 && leaf != nil {
		r.PublicKey = leaf.RawSubjectPublicKeyInfo
	}
	return r
}

// installWanted is what the session needs. Callers hold mu.
func (g *Engine) installWanted(e Enrollment) InstallWanted {
	w := InstallWanted{ID: e.KeyName(), Store: e.Store, Chain: e.Chain, Modules: g.modules(e)}
	if g.policy.InstallAnchors {
		w.Trust = g.policy.Anchors
	}
	return w
}

// modulesFor is modules for those who do not hold mu.
func (g *Engine) modulesFor(e Enrollment) []Module {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.modules(e)
}

// advance puts a finished step's result on record. Callers hold mu.
func (g *Engine) advance(n *entry, st step, mut change) error {
	e := n.e
	if mut != nil {
		mut(&e)
	}
	e.State, e.Changed = st.to, g.now()
	e.Problem, e.Attempts, e.NextAttempt = nil, 0, time.Time{}
	if e.State == Installed && g.leavesMailAlone(e) { // there is nothing to do before the next step
		e.State, e.Mail, e.NextMail = Prepared, nil, g.nextMail(e.ID, nil)
	}
	batch := []Enrollment{e}
	if st.to == Active {
		batch = g.succession(e)
	}
	var told []Event
	// Nobody gave what nobody was asked for, and no program was prepared where there is none.
	if silent := st.to == Consented && e.Consent.NotNeeded || st.to == Prepared && !e.Mail.found(); !silent {
		told = append(told, g.event(st.event, e, true))
	}
	for _, old := range batch[1:] {
		told = append(told, g.event(EventKept, old, true, "replaced_by", string(e.ID)))
	}
	dirty := g.dirty
	if err := g.commit(batch, told...); err != nil {
		return err
	}
	if st.to == Active {
		g.notifyActive(e)
	} else {
		g.dirty = dirty // a step on the way is no reason for another enrollment
	}
	return nil
}

// succession makes e the active one: whatever was active in its slot, or is
// replaced by it, is kept for old mail from now on. Both are saved as one.
func (g *Engine) succession(e Enrollment) []Enrollment {
	batch := []Enrollment{e}
	for _, n := range g.order {
		old := n.e
		if old.ID == e.ID || old.State != Active || old.ID != e.Replaces && slotOf(old) != slotOf(e) {
			continue
		}
		old.State, old.ReplacedBy, old.Changed, old.Problem = Kept, e.ID, e.Changed, nil
		batch = append(batch, old)
	}
	return batch
}
