package platformtest

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"
	"sync"
	"testing"

	"smime-agent/platform"
)

// AddressBook is a [platform.AddressBook] in memory.
type AddressBook struct {
	// Fail, if set, may refuse "put", "ours" and "remove".
	Fail func(op string) error

	mu   sync.Mutex
	all  []*x509.Certificate
	ours []*x509.Certificate
	own  []*x509.Certificate
}

// Name implements [platform.AddressBook].
func (*AddressBook) Name() string { return "memory" }

// File is what a person does by himself.
func (b *AddressBook) File(c *x509.Certificate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, c)
}

// GiveKey puts a private key beside a certificate.
func (b *AddressBook) GiveKey(c *x509.Certificate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own = append(b.own, c)
}

// All is what is there.
func (b *AddressBook) All() []*x509.Certificate {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all)
}

func (b *AddressBook) refused(op string) error {
	if b.Fail == nil {
		return nil
	}
	return b.Fail(op)
}

// Put implements [platform.AddressBook].
func (b *AddressBook) Put(_ context.Context, certs []*x509.Certificate) error {
	if err := b.refused("put"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range certs {
		if !holds(b.all, c) {
			b.all, b.ours = append(b.all, c), append(b.ours, c)
		}
	}
	return nil
}

// Ours implements [platform.AddressBook].
func (b *AddressBook) Ours(context.Context) ([]*x509.Certificate, error) {
	if err := b.refused("ours"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ours), nil
}

// Remove implements [platform.AddressBook].
func (b *AddressBook) Remove(_ context.Context, certs []*x509.Certificate) error {
	if err := b.refused("remove"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	leaves := func(c *x509.Certificate) bool { return holds(certs, c) && holds(b.ours, c) && !holds(b.own, c) }
	needed := func(c *x509.Certificate) bool {
		return slices.ContainsFunc(b.all, func(o *x509.Certificate) bool {
			return !leaves(o) && !bytes.Equal(o.RawIssuer, o.RawSubject) && bytes.Equal(o.RawIssuer, c.RawSubject)
		})
	}
	var going []*x509.Certificate
	for _, c := range b.ours {
		if leaves(c) && (!c.IsCA || !needed(c)) {
			going = append(going, c)
		}
	}
	gone := func(c *x509.Certificate) bool { return holds(going, c) }
	b.all = slices.DeleteFunc(b.all, gone)
	b.ours = slices.DeleteFunc(b.ours, gone)
	return nil
}

func holds(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}

// AddressBookTests is what [TestAddressBook] needs to know of a real one.
type AddressBookTests struct {
	// File does what a person does by himself: it files a certificate.
	File func(t *testing.T, c *x509.Certificate)
	// GiveKey makes the certificate that of a private key beside it; nil where the
	// test cannot.
	GiveKey func(t *testing.T, c *x509.Certificate)
	// All lists everything that is there, whoever filed it.
	All func(t *testing.T) []*x509.Certificate
}

// TestAddressBook runs the promises of [platform.AddressBook]. open opens the
// same place each time.
func TestAddressBook(t *testing.T, open func(t *testing.T) platform.AddressBook, o AddressBookTests) {
	t.Helper()
	ca := NewAuthority(t)
	bob, carol := ca.Partner(t, "Bob@partner.example"), ca.Partner(t, "carol@partner.example")
	dave := NewAuthority(t).Partner(t, "dave@partner.example") // of the person's own choice
	issuer := ca.Issuing
	s := &bookSuite{open: open, o: o}

	s.put(t, bob, carol, issuer)
	s.put(t, bob, carol, issuer) // twice is no error
	s.expect(t, "after Put", []*x509.Certificate{bob, carol, issuer}, nil)

	o.File(t, dave)
	s.put(t, dave)
	s.expect(t, "beside the person's own", []*x509.Certificate{bob, carol, issuer}, []*x509.Certificate{dave})

	s.remove(t, dave, carol)
	s.expect(t, "after Remove", []*x509.Certificate{bob, issuer}, []*x509.Certificate{dave})
	s.remove(t, carol, issuer) // gone already; needed still
	s.expect(t, "after Remove of a needed issuer", []*x509.Certificate{bob, issuer}, []*x509.Certificate{dave})
	if o.GiveKey != nil {
		o.GiveKey(t, bob)
		s.remove(t, bob)
		if !holds(o.All(t), bob) {
			t.Error("a certificate with its key beside it was taken away")
		}
		return
	}
	s.remove(t, bob, issuer)
	if holds(o.All(t), issuer) || !holds(o.All(t), dave) {
		t.Error("after the last Remove: the issuer is there, or what the person filed is not")
	}
}

type bookSuite struct {
	open func(t *testing.T) platform.AddressBook
	o    AddressBookTests
}

func (s *bookSuite) put(t *testing.T, certs ...*x509.Certificate) {
	t.Helper()
	if err := s.open(t).Put(t.Context(), certs); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func (s *bookSuite) remove(t *testing.T, certs ...*x509.Certificate) {
	t.Helper()
	if err := s.open(t).Remove(t.Context(), certs); err != nil {
		t.Fatalf("Remove: %v", err)
	}
}

func (s *bookSuite) expect(t *testing.T, when string, ours, others []*x509.Certificate) {
	t.Helper()
	got, err := s.open(t).Ours(t.Context())
	if err != nil {
		t.Fatalf("Ours: %v", err)
	}
	all := s.o.All(t)
	for _, c := range ours {
		if !holds(got, c) || !holds(all, c) {
			t.Errorf("%s: %q is not there as ours", when, c.Subject.CommonName)
		}
	}
	for _, c := range others {
		if holds(got, c) || !holds(all, c) {
			t.Errorf("%s: %q is ours, or is gone", when, c.Subject.CommonName)
		}
	}
	if len(got) != len(ours) {
		t.Errorf("%s: %d are ours, want %d", when, len(got), len(ours))
	}
}
