package helper_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/platform"
)

const mailbox = "mei.lin@corp.example"

// memoryStore is a platform.Store in memory, with faults.
type memoryStore struct {
	info platform.StoreInfo
	// fail, if set, may refuse an operation by its name.
	fail func(op string) error
	// pin, if set, must be given before keys are opened.
	pin    string
	asks   platform.PINFunc
	within int // how many operations are running; more than one is a fault

	mu      sync.Mutex
	keys    map[platform.KeyID]crypto.Signer
	certs   []*x509.Certificate
	trusted []*x509.Certificate
	crowded bool
	// gate, if set, is waited for before a key is made, whatever ctx says.
	gate <-chan struct{}
	// loses is a certificate that the store takes and does not keep.
	loses *x509.Certificate
	// signsOnly makes keys that can do nothing else; cannotAgree refuses to make
	// keys on curves that shall decrypt, as TPMs do.
	signsOnly, cannotAgree bool
}

func newStore(name string, algorithms ...platform.KeyAlgorithm) *memoryStore {
	return &memoryStore{
		info: platform.StoreInfo{Name: name, Protection: platform.Software, Algorithms: algorithms, Consumers: []string{"Test"}},
		keys: map[platform.KeyID]crypto.Signer{},
	}
}

func (m *memoryStore) Info() platform.StoreInfo { return m.info }

// begin starts an operation and gives its end.
func (m *memoryStore) begin(ctx context.Context, op string) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.fault(op); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.within++
	m.crowded = m.crowded || m.within > 1
	m.mu.Unlock()
	return func() {
		m.mu.Lock()
		m.within--
		m.mu.Unlock()
	}, nil
}

func (m *memoryStore) fault(op string) error {
	m.mu.Lock()
	fail := m.fail
	m.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(op)
}

func (m *memoryStore) unlock(ctx context.Context) error {
	if m.pin == "" {
		return nil
	}
	got, err := m.asks(ctx, m.info.Name, false)
	if err != nil {
		return err
	}
	if got != m.pin {
		return fmt.Errorf("wrong PIN: %w", platform.ErrLocked)
	}
	return nil
}

func (m *memoryStore) Create(ctx context.Context, id platform.KeyID, spec platform.KeySpec) (platform.Key, error) {
	end, err := m.begin(ctx, "create")
	if err != nil {
		return nil, err
	}
	defer end()
	if err := m.unlock(ctx); err != nil {
		return nil, err
	}
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[id] != nil {
		return nil, platform.ErrExists
	}
	if m.cannotAgree && spec.Decrypt && strings.HasPrefix(string(spec.Algorithm), "p-") {
		return nil, fmt.Errorf("keys of kind %q cannot decrypt here: %w", spec.Algorithm, platform.ErrUnsupported)
	}
	key, err := generate(spec.Algorithm)
	if err != nil {
		return nil, err
	}
	m.keys[id] = key
	return m.key(id, key), nil
}

func generate(a platform.KeyAlgorithm) (crypto.Signer, error) {
	switch a {
	case platform.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case platform.P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case platform.P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return nil, platform.ErrUnsupported
	}
}

func (m *memoryStore) Open(ctx context.Context, id platform.KeyID) (platform.Key, error) {
	end, err := m.begin(ctx, "open")
	if err != nil {
		return nil, err
	}
	defer end()
	if err := m.unlock(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[id] == nil {
		return nil, fmt.Errorf("key %s: %w", id, platform.ErrNotFound)
	}
	return m.key(id, m.keys[id]), nil
}

func (m *memoryStore) Delete(ctx context.Context, id platform.KeyID) error {
	end, err := m.begin(ctx, "delete")
	if err != nil {
		return err
	}
	defer end()
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.keys[id]; k != nil && m.leaf(k) != nil {
		return fmt.Errorf("a certificate is tied to it: %w", platform.ErrDenied)
	}
	delete(m.keys, id)
	return nil
}

func (m *memoryStore) Keys(ctx context.Context) ([]platform.KeyInfo, error) {
	end, err := m.begin(ctx, "keys")
	if err != nil {
		return nil, err
	}
	defer end()
	if err := m.unlock(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []platform.KeyInfo
	for id, k := range m.keys {
		all = append(all, platform.KeyInfo{ID: id, Public: k.Public(), Certified: m.leaf(k) != nil})
	}
	slices.SortFunc(all, func(a, b platform.KeyInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// leaf is the newest certificate for a key. Callers hold mu.
func (m *memoryStore) leaf(k crypto.Signer) *x509.Certificate {
	var newest *x509.Certificate
	for _, c := range m.certs {
		same := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public())
		if same && (newest == nil || !c.NotBefore.Before(newest.NotBefore)) {
			newest = c
		}
	}
	return newest
}

func (m *memoryStore) Install(ctx context.Context, id platform.KeyID, chain []*x509.Certificate) error {
	end, err := m.begin(ctx, "install")
	if err != nil {
		return err
	}
	defer end()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[id] == nil {
		return platform.ErrNotFound
	}
	for _, c := range chain {
		if !slices.ContainsFunc(m.certs, c.Equal) && !c.Equal(m.loses) {
			m.certs = append(m.certs, c)
		}
	}
	return nil
}

func (m *memoryStore) Find(ctx context.Context, id platform.KeyID) ([]*x509.Certificate, error) {
	end, err := m.begin(ctx, "find")
	if err != nil {
		return nil, err
	}
	defer end()
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.keys[id]
	if k == nil || m.leaf(k) == nil {
		return nil, platform.ErrNotFound
	}
	chain := []*x509.Certificate{m.leaf(k)}
	for range m.certs {
		last := chain[len(chain)-1]
		i := slices.IndexFunc(m.certs, func(c *x509.Certificate) bool {
			return !c.Equal(last) && last.CheckSignatureFrom(c) == nil
		})
		if i < 0 {
			break
		}
		chain = append(chain, m.certs[i])
	}
	return chain, nil
}

func (m *memoryStore) Remove(_ context.Context, cert *x509.Certificate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.certs = slices.DeleteFunc(m.certs, cert.Equal)
	return nil
}

func (m *memoryStore) Trust(ctx context.Context, anchor *x509.Certificate) error {
	end, err := m.begin(ctx, "trust")
	if err != nil {
		return err
	}
	defer end()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trusted = append(m.trusted, anchor)
	return nil
}

// memoryKey signs; what it can besides depends on its kind.
type memoryKey struct {
	crypto.Signer
	id    platform.KeyID
	store *memoryStore
}

func (k memoryKey) ID() platform.KeyID { return k.id }
func (k memoryKey) Close() error       { return nil }

type memoryRSA struct{ memoryKey }

type memoryEC struct{ memoryKey }

func (m *memoryStore) key(id platform.KeyID, k crypto.Signer) platform.Key {
	if m.signsOnly {
		return memoryKey{k, id, m}
	}
	if _, ok := k.(*rsa.PrivateKey); ok {
		return memoryRSA{memoryKey{k, id, m}}
	}
	return memoryEC{memoryKey{k, id, m}}
}

func (k memoryKey) use(op string) error { return k.store.fault(op) }

func (k memoryRSA) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	if err := k.use("decrypt"); err != nil {
		return nil, err
	}
	return k.Signer.(*rsa.PrivateKey).Decrypt(rand.Reader, msg, opts)
}

func (k memoryEC) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	if err := k.use("decrypt"); err != nil {
		return nil, err
	}
	own, err := k.Signer.(*ecdsa.PrivateKey).ECDH()
	if err != nil {
		return nil, err
	}
	return own.ECDH(remote)
}

// person answers from a script; at its end nobody is there.
type person struct {
	mu      sync.Mutex
	answers []platform.Answer
	pins    []string
	fail    error
	asked   []platform.Question
	entries []platform.Entry
	told    []platform.Notice
}

func (p *person) Ask(ctx context.Context, q platform.Question) (platform.Answer, error) {
	p.mu.Lock()
	p.asked = append(p.asked, q)
	fail, answers := p.fail, p.answers
	if len(answers) > 0 {
		p.answers = answers[1:]
	}
	p.mu.Unlock()
	if fail != nil {
		return "", fail
	}
	if len(answers) > 0 {
		return answers[0], nil
	}
	<-ctx.Done()
	return "", ctx.Err()
}

func (p *person) Enter(_ context.Context, e platform.Entry) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries = append(p.entries, e)
	if len(p.pins) == 0 {
		return "", platform.ErrDenied
	}
	pin := p.pins[0]
	p.pins = p.pins[1:]
	return pin, nil
}

func (p *person) Notify(_ context.Context, n platform.Notice) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, n)
	return p.fail
}

// words says everything plainly.
type words struct{}

func (words) Question(q enroll.Question) platform.Question {
	return platform.Question{Title: q.Organization, Text: "certificate for " + q.Mailbox, Yes: "yes", Later: "later", No: "no"}
}

func (words) Notice(n enroll.Notice) platform.Notice {
	return platform.Notice{Title: string(n.Code), Text: n.Mailbox}
}

func (words) Code(q enroll.CodeQuestion) platform.Entry {
	return platform.Entry{Title: "Code of " + q.Mailbox, Text: fmt.Sprint(q.Wrong)}
}

func (words) PIN(store string, _ bool) platform.Entry {
	return platform.Entry{Title: "PIN of " + store}
}

func (words) Hint(code enroll.Code, store string) string {
	return fmt.Sprintf("What is wrong is %s in %s.", code, store)
}

// world is a user with stores, and the authority that certifies his keys.
type world struct {
	stores  []*memoryStore
	broken  error
	person  *person
	session *helper.Session
	now     time.Time

	root, issuing       *x509.Certificate
	rootKey, issuingKey *ecdsa.PrivateKey
}

func newWorld(t *testing.T, stores ...*memoryStore) *world {
	t.Helper()
	w := &world{stores: stores, person: &person{}, now: time.Now().Truncate(time.Second)}
	w.session = &helper.Session{
		Stores: func(context.Context, []platform.Module) ([]platform.Store, error) {
			var all []platform.Store
			for _, m := range w.stores {
				all = append(all, m)
			}
			return all, w.broken
		},
		Prompter: w.person, Words: words{}, Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler),
		PromptTimeout: time.Minute,
	}
	for _, m := range stores {
		m.asks = w.session.PIN
	}
	w.rootKey, w.issuingKey = ecKey(t), ecKey(t)
	w.root = certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "root"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, w.rootKey.Public(), w.rootKey)
	w.issuing = certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "issuing"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}, w.root, w.issuingKey.Public(), w.rootKey)
	return w
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// certify fills in what the template leaves open; a nil parent signs itself.
func certify(t *testing.T, c, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.BasicConstraintsValid = n.Add(n, big.NewInt(1)), true
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour)
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// issue certifies the key of a CSR; change may spoil the template.
func (w *world) issue(t *testing.T, csr []byte, change func(*x509.Certificate)) [][]byte {
	t.Helper()
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		Subject: r.Subject, EmailAddresses: r.EmailAddresses, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
	}
	if _, ok := r.PublicKey.(*rsa.PublicKey); ok {
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	if change != nil {
		change(c)
	}
	return [][]byte{certify(t, c, w.issuing, r.PublicKey, w.issuingKey).Raw, w.issuing.Raw}
}

func (w *world) anchors() [][]byte { return [][]byte{w.root.Raw} }

// wantError checks kind and code, and that people get a sentence.
func wantError(t *testing.T, err error, kind enroll.Kind, code enroll.Code) {
	t.Helper()
	e, ok := errors.AsType[*enroll.Error](err)
	if !ok {
		t.Errorf("error %v is no *enroll.Error, want %s %s", err, kind, code)
		return
	}
	if e.Kind != kind || e.Code != code {
		t.Errorf("error is %s %s (%v), want %s %s", e.Kind, e.Code, err, kind, code)
	}
	if e.Hint == "" {
		t.Errorf("no hint with %v", err)
	}
}
