package platformtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// authority is a small CA with an issuing CA, for the suite's certificates.
type authority struct {
	root, issuing *x509.Certificate
	key           crypto.Signer
}

func newAuthority(t *testing.T) *authority {
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
	issuing := sign(t, template(name+" Issuing"), root, issuingKey.Public(), rootKey)
	return &authority{root: root, issuing: issuing, key: issuingKey}
}

// chain issues a certificate; a later one begins later.
func (a *authority) chain(t *testing.T, public crypto.PublicKey, later int) []*x509.Certificate {
	t.Helper()
	leaf := sign(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "alice@example.com"},
		EmailAddresses: []string{"alice@example.com"},
		NotBefore:      time.Now().Add(time.Duration(later-30) * time.Minute), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		SubjectKeyId: fingerprint(t, public),
	}, a.issuing, public, a.key)
	return []*x509.Certificate{leaf, a.issuing, a.root}
}

func fingerprint(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return sum[:20]
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newStranger is a public key that no store has.
func newStranger(t *testing.T) crypto.PublicKey {
	t.Helper()
	return newKey(t).Public()
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return new(big.Int).SetBytes(raw)
}

// sign issues a certificate; without a parent it is self-signed.
func sign(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
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
