package publication

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(t testing.TB, serial int64) issued {
	t.Helper()
	return issueTo(t, serial, "Alice")
}

func issueTo(t testing.TB, serial int64, name string) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, EmailAddresses: []string{"alice@example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return issued{c, key}
}

func naming(c *x509.Certificate) issuerAndSerial {
	return issuerAndSerial{Issuer: asn1.RawValue{FullBytes: c.RawIssuer}, Serial: c.SerialNumber}
}

// tagged is the same, implicitly tagged [0] as RFC 8551 §2.5.3 has it.
func tagged(t testing.TB, c *x509.Certificate) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(naming(c))
	if err != nil {
		t.Fatal(err)
	}
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(der, &whole); err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: whole.Bytes}
}

// made is how a value is made.
type made struct {
	content          []byte
	attached         bool
	by               issued
	standard, second *x509.Certificate
	capabilities     bool
	twice            bool
}

func (m made) value(t testing.TB, extra ...*x509.Certificate) []byte {
	t.Helper()
	sd, err := pkcs7.NewSignedData(m.content)
	if err != nil {
		t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	var attributes []pkcs7.Attribute
	if m.standard != nil {
		attributes = append(attributes, pkcs7.Attribute{Type: oidEncryptionKey, Value: tagged(t, m.standard)})
	}
	if m.second != nil {
		attributes = append(attributes, pkcs7.Attribute{Type: oidMicrosoftEncryptionKey, Value: naming(m.second)})
	}
	if m.capabilities {
		attributes = append(attributes, pkcs7.Attribute{Type: oidCapabilities, Value: []pkix.AlgorithmIdentifier{{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}}}})
	}
	for range map[bool]int{false: 1, true: 2}[m.twice] {
		if err := sd.AddSigner(m.by.cert, m.by.key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: attributes}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range extra {
		sd.AddCertificate(c)
	}
	if !m.attached {
		sd.Detach()
	}
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCheck(t *testing.T) {
	a, other := issue(t, 1), issue(t, 2)
	good := made{by: a, standard: a.cert, second: a.cert, capabilities: true}
	c, err := Check(good.value(t), a.cert)
	if err != nil || !c.Equal(a.cert) {
		t.Fatalf("a good one: %v", err)
	}
	forOther := made{by: a, standard: other.cert, second: other.cert, capabilities: true}
	if c, err := Check(forOther.value(t, other.cert), a.cert); err != nil || !c.Equal(other.cert) {
		t.Errorf("for another certificate: %v", err)
	}
	var many []*x509.Certificate
	for serial := range int64(maxCertificates) {
		many = append(many, issue(t, 10+serial).cert)
	}
	if _, err := Check(good.value(t, many[1:]...), a.cert); err != nil {
		t.Errorf("with as many certificates as may be: %v", err)
	}
	broken := good.value(t)
	broken[len(broken)-1] ^= 1
	for name, value := range map[string][]byte{
		"empty": nil, "rubbish": []byte("hello"), "too long": make([]byte, MaxValue+1), "cut": good.value(t)[:100],
		"a huge certificate":          good.value(t, issueTo(t, 3, strings.Repeat("x", MaxValue)).cert),
		"many certificates":           good.value(t, many...),
		"another signature":           broken,
		"another signer":              made{by: other, standard: other.cert, second: other.cert, capabilities: true}.value(t),
		"content":                     made{by: a, content: []byte("I owe you"), attached: true, standard: a.cert, second: a.cert, capabilities: true}.value(t),
		"a signature of content":      made{by: a, content: []byte("I owe you"), standard: a.cert, second: a.cert, capabilities: true}.value(t),
		"two signatures":              made{by: a, standard: a.cert, second: a.cert, capabilities: true, twice: true}.value(t),
		"no capabilities":             made{by: a, standard: a.cert, second: a.cert}.value(t),
		"no preference":               made{by: a, capabilities: true}.value(t),
		"two preferences":             made{by: a, standard: a.cert, second: other.cert, capabilities: true}.value(t, other.cert),
		"a preference that is absent": forOther.value(t),
	} {
		if _, err := Check(value, a.cert); !errors.Is(err, ErrValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	a := issue(f, 1)
	f.Add(made{by: a, standard: a.cert, second: a.cert, capabilities: true}.value(f))
	f.Fuzz(func(t *testing.T, value []byte) {
		if _, err := Check(value, a.cert); err != nil && !errors.Is(err, ErrValue) {
			t.Error(err)
		}
	})
}
