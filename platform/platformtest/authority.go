package platformtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// Authority is a small CA: a root and an issuing CA below it.
type Authority struct {
	Root, Issuing *x509.Certificate
	key           crypto.Signer
}

// Mailbox is the one that [Authority.Chain] certifies.
const Mailbox = "alice@example.com"

// NewAuthority makes a CA with fresh names and keys.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	rootKey, issuingKey := newKey(t), newKey(t)
	name := "Conformance Root " + string(NewID(t))
	template := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: serial(t), Subject: pkix.Name{CommonName: cn},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	root := sign(t, template(name), nil, rootKey.Public(), rootKey)
	below := template(name + " Issuing")
	below.MaxPathLenZero, below.ExtKeyUsage = true, []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
	issuing := sign(t, below, root, issuingKey.Public(), rootKey)
	return &Authority{Root: root, Issuing: issuing, key: issuingKey}
}

// Chain issues a certificate for signing and encryption and gives it with its
// issuers, the root last. A later one begins later, by minutes.
func (a *Authority) Chain(t testing.TB, public crypto.PublicKey, later int) []*x509.Certificate {
	t.Helper()
	usage := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
	if _, ok := public.(*rsa.PublicKey); ok {
		usage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	leaf := sign(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: Mailbox}, EmailAddresses: []string{Mailbox},
		NotBefore: time.Now().Add(time.Duration(later-30) * time.Minute), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: usage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		BasicConstraintsValid: true, SubjectKeyId: fingerprint(t, public),
	}, a.Issuing, public, a.key)
	return []*x509.Certificate{leaf, a.Issuing, a.Root}
}

// Partner issues a certificate of somebody else, whose key no store has.
func (a *Authority) Partner(t testing.TB, mailbox string) *x509.Certificate {
	t.Helper()
	return a.PartnerFor(t, mailbox, newStrangerRSA(t))
}

// PartnerFor is [Authority.Partner] for a key.
func (a *Authority) PartnerFor(t testing.TB, mailbox string, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	return sign(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: mailbox}, EmailAddresses: []string{mailbox},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		BasicConstraintsValid: true, SubjectKeyId: fingerprint(t, public),
	}, a.Issuing, public, a.key)
}

func fingerprint(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return sum[:20]
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newStranger is a public key that no store has.
func newStranger(t testing.TB) crypto.PublicKey {
	t.Helper()
	return newKey(t).Public()
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return new(big.Int).SetBytes(raw)
}

// sign issues a certificate; without a parent it is self-signed.
func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newStrangerRSA(t testing.TB) crypto.PublicKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}
