package smime

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"
)

const mailbox = "mei.lin@corp.example"

// ecKey agrees as a store's EC key does.
type ecKey struct{ *ecdsa.PrivateKey }

func (k ecKey) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	own, err := k.PrivateKey.ECDH()
	if err != nil {
		return nil, err
	}
	return own.ECDH(remote)
}

// authority is a root with an issuing CA for e-mail.
type authority struct {
	root, issuing       *x509.Certificate
	rootKey, issuingKey *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{rootKey: newEC(t, elliptic.P256()), issuingKey: newEC(t, elliptic.P256())}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name + " root"},
		NotBefore: now.Add(-10 * 365 * 24 * time.Hour), NotAfter: now.Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.root = issue(t, root, root, a.rootKey.Public(), a.rootKey)
	issuing := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name + " issuing"},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, MaxPathLenZero: true,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	a.issuing = issue(t, issuing, a.root, a.issuingKey.Public(), a.rootKey)
	return a
}

// leaf issues for mailbox; change may spoil the template.
func (a *authority) leaf(t testing.TB, public crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "Lin Mei"}, EmailAddresses: []string{mailbox},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, SubjectKeyId: keyID(t, public),
	}
	if _, ok := public.(*ecdsa.PublicKey); ok {
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
	}
	if change != nil {
		change(c)
	}
	return issue(t, c, a.issuing, public, a.issuingKey)
}

func (a *authority) chain() []*x509.Certificate { return []*x509.Certificate{a.issuing} }

func (a *authority) expected() Expected {
	return Expected{Mailbox: mailbox, Anchors: []*x509.Certificate{a.root}, At: time.Now()}
}

func issue(t testing.TB, c, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
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

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

func keyID(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return sum[:20]
}

func newEC(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyKind is a kind of key that the tests go through.
type keyKind struct {
	name string
	key  interface {
		crypto.Signer
		PrivateKey
	}
	raw crypto.PrivateKey
}

var rsaKeys = sync.OnceValues(func() ([]*rsa.PrivateKey, error) {
	var keys []*rsa.PrivateKey
	for _, bits := range []int{2048, 3072} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
})

func keyKinds(t testing.TB) []keyKind {
	t.Helper()
	rsas, err := rsaKeys()
	if err != nil {
		t.Fatal(err)
	}
	p256, p384 := newEC(t, elliptic.P256()), newEC(t, elliptic.P384())
	return []keyKind{
		{"rsa-2048", rsas[0], rsas[0]},
		{"rsa-3072", rsas[1], rsas[1]},
		{"p-256", ecKey{p256}, p256},
		{"p-384", ecKey{p384}, p384},
	}
}

func newECPublic(t testing.TB) crypto.PublicKey { return newEC(t, elliptic.P256()).Public() }
