package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errCrashed = errors.New("the process is gone")

// world is what outlives the agent: its record, the users' stores, the authority.
type world struct {
	t      testing.TB
	mu     sync.Mutex
	offset atomic.Int64 // of the clock against the bubble's
	// caOffset is that of the authority's clock.
	caOffset time.Duration
	ca       *ca
	record   map[ID]Enrollment
	told     []Event             // on record with the changes
	versions []map[ID]Enrollment // the record after each save
	users    map[string]*person
	// the authority's books
	issued   map[ID][]*x509.Certificate
	csrs     map[ID][]byte
	refs     map[string]Submission
	requests []time.Time
	refused  int // submits that the policy of the test refuses
	life     time.Duration
	// faults
	saveErr   error
	authErr   func() error
	mangle    func(*x509.Certificate)
	pendings  int
	proofFail string
	crashAt   int // number of the crash point, from 1; 0 is never
	points    int
}

type person struct {
	present  bool
	stores   []StoreFound
	failures []*Error
	keys     map[string]map[ID]*storedKey
	ask      func(context.Context, Question) (Verdict, error)
	asked    int
	notices  []NoticeCode
	proofs   int
	locked   bool
	discards int
	// mail is a mail program: the certificate that it uses, and what it says.
	mail      []byte
	mailSays  MailAccount
	mailErr   error
	prepares  []PrepareWanted
	preparing func(PrepareWanted) // called while the programs are worked on
}

type storedKey struct {
	private crypto.Signer
	chain   [][]byte
	ever    bool // a certificate was once tied to it
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, ca: newCA(t), record: map[ID]Enrollment{}, users: map[string]*person{},
		issued: map[ID][]*x509.Certificate{}, csrs: map[ID][]byte{}, refs: map[string]Submission{}, life: 365 * day,
	}
}

func (w *world) person(name string) *person {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.users[name]
	if p == nil {
		p = &person{present: true, mailSays: MailAccount{Program: "memory", ID: "1", State: MailReady}, keys: map[string]map[ID]*storedKey{}, stores: []StoreFound{
			{Name: "nss:default", Protection: "software", Algorithms: []string{"rsa-2048", "p-256"}},
		}}
		w.users[name] = p
	}
	return p
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

// process is one life of the agent: after a crash nothing of it has an effect.
type process struct {
	*world
	dead bool
}

// effect runs do as an outside effect, with a crash point before and one after,
// where the effect happened but nobody heard of it.
func (p *process) effect(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crashes() {
		return errCrashed
	}
	err := do()
	if p.crashes() {
		return errCrashed
	}
	return err
}

func (p *process) crashes() bool {
	if p.dead {
		return true
	}
	p.points++
	p.dead = p.points == p.crashAt
	return p.dead
}

func (p *process) Save(all []Enrollment, told []Event) error {
	return p.effect(func() error {
		if p.saveErr != nil {
			return p.saveErr
		}
		for _, e := range all {
			p.record[e.ID] = e
		}
		p.told = append(p.told, told...)
		p.versions = append(p.versions, maps.Clone(p.record))
		return nil
	})
}

func (p *process) Load() ([]Enrollment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Enrollment
	for _, e := range p.record {
		all = append(all, e)
	}
	return all, nil
}

func (p *process) Session(name string) (Session, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.users[name]
	if !ok || !u.present {
		return nil, false
	}
	return &session{p, name, u}, true
}

type session struct {
	*process
	name string
	u    *person
}

func (s *session) MakeRequest(_ context.Context, r RequestWanted) (made RequestMade, err error) {
	err = s.effect(func() error {
		if s.u.locked {
			return &Error{Kind: Waiting, Code: CodeStoreLocked, Hint: "Unlock."}
		}
		keys := s.u.keys[r.Store]
		if keys == nil {
			keys = map[ID]*storedKey{}
			s.u.keys[r.Store] = keys
		}
		id := r.ID
		if r.ReuseKeyOf != "" {
			id = r.ReuseKeyOf
		}
		k := keys[id]
		if k == nil {
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			k = &storedKey{private: private}
			keys[id] = k
		}
		made = RequestMade{CSR: newCSR(s.t, k.private), Algorithm: "p-256", Protection: "software"}
		return nil
	})
	return made, err
}

func newCSR(t testing.TB, key crypto.Signer) []byte {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func (s *session) Install(_ context.Context, w InstallWanted) error {
	return s.effect(func() error {
		k := s.u.keys[w.Store][w.ID]
		if k == nil {
			return &Error{Kind: Final, Code: CodeKeyMissing}
		}
		leaf, err := x509.ParseCertificate(w.Chain[0])
		if err != nil || !sameKey(k.private.Public(), leaf.PublicKey) {
			s.t.Errorf("installed what is not for the key: %v", err)
		}
		k.chain, k.ever = w.Chain, true
		return nil
	})
}

func (s *session) Prepare(_ context.Context, w PrepareWanted) (all []MailAccount, err error) {
	if s.u.preparing != nil {
		s.u.preparing(w)
	}
	err = s.effect(func() error {
		s.u.prepares = append(s.u.prepares, w)
		if s.u.mailErr != nil || s.u.mailSays.Program == "" {
			return s.u.mailErr
		}
		a := s.u.mailSays
		if w.Undo {
			if a.State == MailReady {
				a.State, a.Changed, s.u.mail = MailUndone, s.u.mail != nil, nil
			}
			all = []MailAccount{a}
			return nil
		}
		if a.State == MailReady {
			a.Changed = !slices.Equal(s.u.mail, w.Chain[0])
			s.u.mail = w.Chain[0]
		}
		all = []MailAccount{a}
		return nil
	})
	return all, err
}

func (s *session) Prove(_ context.Context, w ProofWanted) (p Proof, err error) {
	err = s.effect(func() error {
		s.u.proofs++
		if s.u.locked {
			return &Error{Kind: Waiting, Code: CodeStoreLocked, Hint: "Unlock."}
		}
		p = Proof{At: s.now(), Signs: w.Sign, Decrypts: w.Encrypt, ChainOK: true, Failure: s.proofFail}
		if k := s.u.keys[w.Store][w.ID]; k == nil || k.chain == nil {
			p.Failure = "No key."
		}
		return nil
	})
	return p, err
}

func (s *session) Inventory(_ context.Context, modules []Module) (inv Inventory, err error) {
	err = s.effect(func() error {
		stores := slices.DeleteFunc(slices.Clone(s.u.stores), func(f StoreFound) bool {
			return strings.HasPrefix(f.Name, "pkcs11:") && len(modules) == 0
		})
		inv = Inventory{Stores: stores, Failures: s.u.failures}
		for _, store := range stores {
			for id, k := range s.u.keys[store.Name] {
				spki, _ := x509.MarshalPKIXPublicKey(k.private.Public())
				inv.Keys = append(inv.Keys, KeyFound{ID: id, Store: store.Name, PublicKey: spki, Chain: k.chain})
			}
		}
		slices.SortFunc(inv.Keys, func(a, b KeyFound) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
		return nil
	})
	return inv, err
}

func (s *session) Discard(_ context.Context, store string, id ID, _ []Module) error {
	return s.effect(func() error {
		k := s.u.keys[store][id]
		if k == nil {
			return nil
		}
		if k.ever || len(s.issued[id]) > 0 {
			s.t.Errorf("key %s had a certificate and was to be discarded", id)
			return &Error{Kind: Waiting, Code: CodeStoreDenied}
		}
		delete(s.u.keys[store], id)
		s.u.discards++
		return nil
	})
}

func (s *session) Publish(context.Context, PublishWanted) ([]byte, error) {
	return []byte("signed"), nil
}

func (s *session) FilePartners(context.Context, [][]byte) (PartnersFiled, error) {
	return PartnersFiled{}, nil
}

func (s *session) Ask(ctx context.Context, q Question) (v Verdict, err error) {
	err = s.effect(func() error { s.u.asked++; return nil })
	if err != nil {
		return "", err
	}
	if s.u.ask == nil {
		return Approve, nil
	}
	return s.u.ask(ctx, q)
}

// EnterCode is not for the engine: it knows of no codes.
func (s *session) EnterCode(context.Context, CodeQuestion) (string, error) { return "", nil }

func (s *session) Notify(_ context.Context, n Notice) error {
	return s.effect(func() error { s.u.notices = append(s.u.notices, n.Code); return nil })
}

func (p *process) Submit(_ context.Context, s Submission) (r Receipt, err error) {
	err = p.effect(func() error {
		p.requests = append(p.requests, p.now())
		if p.authErr != nil {
			if err := p.authErr(); err != nil {
				return err
			}
		}
		if p.refused > 0 {
			p.refused--
			return &Error{Kind: Final, Code: CodeRequestRefused, Hint: "No."}
		}
		if old, ok := p.csrs[s.ID]; ok && !slices.Equal(old, s.CSR) {
			return &Error{Kind: Final, Code: CodeRequestRefused, Hint: "Another CSR."}
		}
		p.csrs[s.ID] = s.CSR
		r.Reference = "ref-" + string(s.ID)
		p.refs[r.Reference] = s
		return nil
	})
	return r, err
}

func (p *process) Collect(_ context.Context, ref string) (c Collection, err error) {
	err = p.effect(func() error {
		p.requests = append(p.requests, p.now())
		if p.authErr != nil {
			if err := p.authErr(); err != nil {
				return err
			}
		}
		s, ok := p.refs[ref]
		if !ok {
			return &Error{Kind: Final, Code: CodeRequestRefused}
		}
		if p.pendings > 0 {
			p.pendings--
			c = Collection{WaitsFor: "administrator", RetryAfter: time.Minute}
			return nil
		}
		if len(p.issued[s.ID]) == 0 {
			p.issued[s.ID] = append(p.issued[s.ID], p.ca.issue(p.t, s.CSR, s.Mailboxes, time.Now().Add(p.caOffset), p.life, p.mangle))
		}
		c.Chain = [][]byte{p.issued[s.ID][0].Raw, p.ca.issuing.Raw}
		return nil
	})
	return c, err
}

// engine starts a life of the agent.
func (w *world) engine() (*Engine, *process) {
	p := &process{world: w}
	return &Engine{Ledger: p, Sessions: p, Authority: p, Now: w.now}, p
}

func (w *world) policy(as ...Assignment) Policy {
	return Policy{Revision: "1", Organization: "Example", Assignments: as, Anchors: [][]byte{w.ca.root.Raw}}
}

func assignment(user, mailbox string) Assignment {
	return Assignment{
		User: user, Mailboxes: []string{mailbox}, Consent: ConsentSilent,
		Profile: Profile{Name: "employee-dual", Keys: []string{"p-256"}, Sign: true, Encrypt: true, MaxValidity: 366 * day},
		Mail:    MailRule{Programs: []string{"*"}, Sign: MailAlways, Encrypt: MailUser},
	}
}

// codes are what the record tells of an enrollment, in order.
func (w *world) codes(id ID) []EventCode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.codesOf(id)
}

func (w *world) codesOf(id ID) []EventCode {
	var codes []EventCode
	for _, ev := range w.told {
		if ev.Enrollment.ID == id {
			codes = append(codes, ev.Code)
		}
	}
	return codes
}

// checkTold holds that each step is told of once, whatever crashed.
func (w *world) checkTold(e Enrollment) {
	if e.Reason == ReasonAdopted || e.State != Active && e.State != Kept {
		return
	}
	times := map[EventCode]int{}
	for _, code := range w.codesOf(e.ID) {
		times[code]++
	}
	for _, st := range lifecycle {
		once := (st.event != EventConsent || !e.Consent.NotNeeded) && (st.event != EventPrepared || e.Mail.found())
		again := st.event == EventProved || st.event == EventInstalled || st.event == EventPrepared
		if n := times[st.event]; once && n == 0 || n > 1 && !again {
			w.t.Errorf("%s of %s is told %d times", st.event, e.ID, n)
		}
	}
}

// checkMail: who has one credential in use has his mail program use it.
func (w *world) checkMail() {
	active := map[string][]Enrollment{}
	for _, e := range w.record {
		if e.State == Active {
			active[e.Assignment.User] = append(active[e.Assignment.User], e)
		}
	}
	for name, all := range active {
		if u := w.users[name]; len(all) == 1 && u.present && u.mailSays.State == MailReady && !slices.Equal(u.mail, all[0].Chain[0]) {
			w.t.Errorf("the mail program of %s does not use %s", name, all[0].ID)
		}
	}
}

// check judges from the record, the stores and the authority's books, not from
// what the agent says: I1 to I3, for as many certificates per slot as issued.
func (w *world) check(certificatesPerSlot int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkMail()
	active, perSlot, names := map[slot]int{}, map[slot]int{}, map[ID]bool{}
	for _, e := range w.record {
		names[e.KeyName()] = true
		if e.State == Active {
			active[slotOf(e)]++
		}
		if e.inProgress() {
			w.t.Errorf("%s is %s: %+v", e.ID, e.State, e.Problem)
		}
		perSlot[slotOf(e)] += len(w.issued[e.ID])
		w.checkTold(e)
	}
	for s, n := range perSlot {
		if n != certificatesPerSlot || active[s] != 1 {
			w.t.Errorf("slot %v: %d certificates, %d active", s, n, active[s])
		}
	}
	for name, u := range w.users {
		for store, keys := range u.keys {
			for id, k := range keys {
				if !names[id] || k.chain == nil {
					w.t.Errorf("orphan key %s in %s of %s", id, store, name)
				}
			}
			if len(keys) != certificatesPerSlot {
				w.t.Errorf("%d keys in %s of %s", len(keys), store, name)
			}
		}
	}
}

func (w *world) summary() string {
	s := ""
	for _, e := range w.record {
		s += fmt.Sprintf("%s %s %s %s %+v\n", e.ID, e.Store, e.State, e.Reason, e.Problem)
	}
	return s
}

// counts are requests, certificates and proofs so far.
func (w *world) counts() (requests, certificates, proofs int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range w.users {
		proofs += u.proofs
	}
	return len(w.requests), len(w.issued), proofs
}

// noLedger forgets, for tests that look at something else.
type noLedger struct{}

func (noLedger) Save([]Enrollment, []Event) error { return nil }
func (noLedger) Load() ([]Enrollment, error)      { return nil, nil }
