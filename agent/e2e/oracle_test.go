//go:build linux

package e2e_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/smime"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

// ledgerEntry is what central management's ledger says of a certificate.
type ledgerEntry struct {
	Serial      string       `json:"serial"`
	Name        string       `json:"name"`
	Mailbox     string       `json:"mailbox"`
	Type        string       `json:"type"`
	Device      string       `json:"device_id"`
	User        string       `json:"user"`
	Store       string       `json:"store"`
	Protection  string       `json:"protection"`
	Enrollment  string       `json:"enrollment_id"`
	Fingerprint string       `json:"fingerprint_sha256"`
	Status      string       `json:"status"`
	NotAfter    time.Time    `json:"not_after"`
	Proof       *ledgerProof `json:"proof"`
}

type ledgerProof struct {
	OK bool `json:"ok"`
}

// ledger asks central management.
func (w *world) ledger() []ledgerEntry {
	w.t.Helper()
	var all []ledgerEntry
	w.must(json.Unmarshal([]byte(w.central("ledger", "--json")), &all))
	return all
}

// ledgerOf waits until the ledger has the proof of a credential, and gives its line.
func (w *world) ledgerOf(c status.Credential) ledgerEntry {
	w.t.Helper()
	for ctx := w.within(); ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		for _, e := range w.ledger() {
			if e.Serial == c.Serial && e.Proof != nil && e.Proof.OK {
				return e
			}
		}
	}
	w.t.Fatalf("the ledger has no proof of %s", c.Serial)
	return ledgerEntry{}
}

// root is the anchor of the company.
func (w *world) root() *x509.Certificate {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.Dir, "central", "ca", "root.crt"))
	w.must(err)
	block, _ := pem.Decode(raw)
	if block == nil {
		w.t.Fatal("the root is not PEM")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	w.must(err)
	return root
}

// oracle reads the real stores and the ledger, never the agent's own report
// alone, and says what contradicts the invariants.
type oracle struct {
	w       *world
	options platform.StoreOptions
	root    *x509.Certificate
	// others are keys that were there before: a token may be shared by tests.
	others map[platform.KeyID]bool
	broken []string
}

func (w *world) oracle() *oracle {
	return &oracle{w: w, options: platform.StoreOptions{Home: w.Home(w.account)}}
}

func (o *oracle) violates(invariant, format string, args ...any) {
	o.broken = append(o.broken, invariant+": "+fmt.Sprintf(format, args...))
}

// disown leaves out of account what is in the stores now.
func (o *oracle) disown() {
	o.w.t.Helper()
	stores, err := platform.Stores(o.w.t.Context(), o.options)
	o.w.must(err)
	o.others = map[platform.KeyID]bool{}
	for _, s := range stores {
		keys, err := s.Keys(o.w.t.Context())
		if err != nil && !errors.Is(err, platform.ErrNotFound) {
			o.w.t.Fatal(err)
		}
		for _, k := range keys {
			o.others[k.ID] = true
		}
	}
}

// verdict is what was found.
type verdict struct {
	keys, certificates, decrypted int
}

// judge looks at everything, in a moment when nothing is on its way.
func (o *oracle) judge(r status.Report) (verdict, error) {
	var v verdict
	o.root = o.w.root()
	ledger := o.w.ledger()
	entries := o.index(ledger)
	v.certificates = len(ledger)
	stores, err := platform.Stores(o.w.t.Context(), o.options)
	if err != nil {
		return v, err
	}
	found := map[string]bool{}
	for _, s := range stores {
		keys, err := s.Keys(o.w.t.Context())
		if err != nil && !errors.Is(err, platform.ErrNotFound) {
			return v, fmt.Errorf("list keys of %s: %w", s.Info().Name, err)
		}
		for _, k := range keys {
			if o.others[k.ID] {
				continue
			}
			v.keys++
			found[s.Info().Name+" "+string(k.ID)] = true
			e, ok := entries[string(k.ID)]
			if !ok || e.Store != s.Info().Name {
				o.violates("I2", "key %s in %s is an orphan (certified: %v)", k.ID, s.Info().Name, k.Certified)
				continue
			}
			if o.works(s, k, e) {
				v.decrypted++
			}
		}
	}
	for _, e := range ledger {
		if !found[e.Store+" "+e.Enrollment] {
			o.violates("I1", "certificate %s (%s) has no key in %s", e.Serial, e.Enrollment, e.Store)
		}
	}
	o.onePerSlot(r, entries)
	return v, o.err()
}

func (o *oracle) err() error {
	if len(o.broken) == 0 {
		return nil
	}
	return errors.New(strings.Join(o.broken, "\n"))
}

// index refuses serials and enrollments that occur twice.
func (o *oracle) index(ledger []ledgerEntry) map[string]ledgerEntry {
	byEnrollment, serials := map[string]ledgerEntry{}, map[string]bool{}
	for _, e := range ledger {
		if serials[e.Serial] {
			o.violates("I2", "serial %s was given twice", e.Serial)
		}
		if _, twice := byEnrollment[e.Enrollment]; twice {
			o.violates("I2", "enrollment %s has two certificates", e.Enrollment)
		}
		serials[e.Serial], byEnrollment[e.Enrollment] = true, e
	}
	return byEnrollment
}

// works takes a key with its certificate out of the store as a mail program
// would: the certificate is the ledger's, is for the key and the mailbox, leads
// to the root, and a message that was encrypted to it can be read.
func (o *oracle) works(s platform.Store, k platform.KeyInfo, e ledgerEntry) bool {
	ctx := o.w.t.Context()
	chain, err := s.Find(ctx, k.ID)
	if err != nil {
		o.violates("I1", "certificate %s is not in %s beside its key: %v", e.Serial, s.Info().Name, err)
		return false
	}
	leaf := chain[0]
	sum := sha256.Sum256(leaf.Raw)
	if leaf.SerialNumber.Text(16) != e.Serial || hex.EncodeToString(sum[:]) != e.Fingerprint {
		o.violates("I3", "the store has %s for %s, the ledger %s", leaf.SerialNumber.Text(16), k.ID, e.Serial)
	}
	if !slices.Contains(leaf.EmailAddresses, e.Mailbox) {
		o.violates("I3", "certificate of %s is for %v", e.Mailbox, leaf.EmailAddresses)
	}
	if err := smime.VerifyChain(leaf, chain[1:], []*x509.Certificate{o.root}, time.Now()); err != nil {
		o.violates("I3", "chain of %s: %v", k.ID, err)
	}
	if err := o.reads(ctx, s, k.ID, leaf); err != nil {
		o.violates("I1", "key %s in %s: %v", k.ID, s.Info().Name, err)
		return false
	}
	return true
}

// reads has openssl, where it is installed, encrypt a message to the
// certificate, and reads it with the key in the store. A certificate that is for
// signatures only has its key compared instead.
func (o *oracle) reads(ctx context.Context, s platform.Store, id platform.KeyID, leaf *x509.Certificate) error {
	key, err := s.Open(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = key.Close() }()
	if !samePublic(key.Public(), leaf.PublicKey) {
		return errors.New("the key is not the certificate's")
	}
	if leaf.KeyUsage&(x509.KeyUsageKeyAgreement|x509.KeyUsageKeyEncipherment) == 0 {
		return nil
	}
	const text = "Content-Type: text/plain\r\n\r\nOld mail stays readable.\r\n"
	sealed, err := seal(ctx, leaf, text)
	if err != nil {
		return err
	}
	opened, err := smime.Decrypt(sealed, leaf, key)
	if err != nil {
		return err
	}
	if string(opened.Content) != text {
		return errors.New("another text was read than was encrypted")
	}
	return nil
}

func samePublic(a, b any) bool {
	x, err1 := x509.MarshalPKIXPublicKey(a)
	y, err2 := x509.MarshalPKIXPublicKey(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

func seal(ctx context.Context, leaf *x509.Certificate, text string) ([]byte, error) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return smime.Encrypt([]byte(text), []*x509.Certificate{leaf}, smime.EncryptOptions{})
	}
	file, err := os.CreateTemp("", "smime-leaf-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	err = errors.Join(pem.Encode(file, &pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), file.Close())
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, openssl, "cms", "-encrypt", "-aes256", "-binary", "-outform", "DER", file.Name())
	cmd.Stdin = strings.NewReader(text)
	return cmd.Output()
}

// onePerSlot: of what is in use there is one for each mailbox, kind and store.
func (o *oracle) onePerSlot(r status.Report, entries map[string]ledgerEntry) {
	active := map[string]enroll.ID{}
	for _, c := range r.Credentials {
		if c.State != enroll.Active {
			continue
		}
		slot := c.User + " " + c.Mailbox + " " + c.Profile + " " + c.Store
		if other, twice := active[slot]; twice {
			o.violates("I2", "%s and %s are both active for %s", other, c.ID, slot)
		}
		active[slot] = c.ID
		if e, ok := entries[string(c.ID)]; !ok || e.Serial != c.Serial {
			o.violates("I1", "%s is active with %s, the ledger has %q", c.ID, c.Serial, e.Serial)
		}
	}
}
