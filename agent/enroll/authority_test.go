package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"
)

// ca is a small authority of two levels.
type ca struct {
	root, issuing *x509.Certificate
	rootKey, key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	c := &ca{}
	// Long enough for years of virtual time, which begins in 2000.
	from, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
	tmpl := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1 << 62), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	c.rootKey, c.root = selfSigned(t, tmpl("Root"))
	var err error
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	issuing := tmpl("Issuing")
	issuing.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
	c.issuing = sign(t, issuing, c.root, &c.key.PublicKey, c.rootKey)
	return c
}

func selfSigned(t testing.TB, tmpl *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, sign(t, tmpl, tmpl, &key.PublicKey, key)
}

func sign(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl.Policies = nil // what CreateCertificate writes; PolicyIdentifiers it only reads
	for _, id := range tmpl.PolicyIdentifiers {
		arcs := make([]uint64, 0, len(id))
		for _, a := range id {
			arcs = append(arcs, uint64(a))
		}
		oid, err := x509.OIDFromInts(arcs)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.Policies = append(tmpl.Policies, oid)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *ca) template(mailboxes []string, now time.Time, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	return &x509.Certificate{
		SerialNumber: serial.SetBit(serial, 126, 1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life - time.Hour - time.Second),
		Subject: pkix.Name{CommonName: mailboxes[0]}, EmailAddresses: mailboxes,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		BasicConstraintsValid: true, PolicyIdentifiers: []asn1.ObjectIdentifier{{2, 23, 140, 1, 5, 1, 3}},
	}
}

func (c *ca) issue(t testing.TB, csr []byte, mailboxes []string, now time.Time, life time.Duration, mangle func(*x509.Certificate)) *x509.Certificate {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := c.template(mailboxes, now, life)
	if mangle != nil {
		mangle(tmpl)
	}
	return sign(t, tmpl, c.issuing, r.PublicKey, c.key)
}

// lossyAuthority loses every second reply.
type lossyAuthority struct {
	Authority
	calls int
}

func (l *lossyAuthority) lost() error {
	if l.calls++; l.calls%2 == 1 {
		return &Error{Kind: Transient, Code: CodeControlUnreachable, Err: errors.New("connection reset")}
	}
	return nil
}

func (l *lossyAuthority) Submit(ctx context.Context, s Submission) (Receipt, error) {
	r, err := l.Authority.Submit(ctx, s)
	if lost := l.lost(); lost != nil {
		return Receipt{}, lost
	}
	return r, err
}

func (l *lossyAuthority) Collect(ctx context.Context, ref string) (Collection, error) {
	c, err := l.Authority.Collect(ctx, ref)
	if lost := l.lost(); lost != nil {
		return Collection{}, lost
	}
	return c, err
}
