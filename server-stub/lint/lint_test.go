package lint

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
)

func oid(t testing.TB, text string) x509.OID {
	t.Helper()
	o, err := x509.ParseOID(text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func name(numbers []int, value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: numbers, Value: value}
}

// sponsor is a good template of an employee's Strict certificate.
func sponsor(t testing.TB) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 140))
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial.SetBit(serial, 139, 1),
		Subject: pkix.Name{
			CommonName: "Alice Example", Organization: []string{"Example GmbH"}, Country: []string{"DE"},
			ExtraNames: []pkix.AttributeTypeAndValue{
				name([]int{2, 5, 4, 97}, "NTRDE-DER3306.HRB12345"), name([]int{2, 5, 4, 42}, "Alice"), name([]int{2, 5, 4, 4}, "Example"),
			},
		},
		NotBefore: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 10, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		EmailAddresses:        []string{"alice@example.com"},
		CRLDistributionPoints: []string{"http://pki.example.com/crl"}, IssuingCertificateURL: []string{"http://pki.example.com/ca"},
		Policies: []x509.OID{oid(t, "2.23.140.1.5.3.3")}, SubjectKeyId: make([]byte, 20),
	}
}

func sign(t testing.TB, template *x509.Certificate, public crypto.PublicKey) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "Test CA", Organization: []string{"Example GmbH"}, Country: []string{"DE"}},
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte("an issuer's key id.."),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecPublic(t testing.TB, curve elliptic.Curve) crypto.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// modulus makes an odd number of so many bits; only its length matters here.
func modulus(t testing.TB, bits int) crypto.PublicKey {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
	if err != nil {
		t.Fatal(err)
	}
	return &rsa.PublicKey{N: n.SetBit(n.SetBit(n, 0, 1), bits-1, 1), E: 65537}
}

func TestOwnChecksFindWhatIsPlanted(t *testing.T) {
	linter, err := New()
	if err != nil {
		t.Fatal(err)
	}
	good := sign(t, sponsor(t), ecPublic(t, elliptic.P256()))
	if found := linter.Findings(good); len(found) != 0 {
		t.Fatalf("a good certificate has findings: %v", found)
	}
	cases := map[string]struct {
		spoil  func(*x509.Certificate)
		public crypto.PublicKey
	}{
		"Z1": {spoil: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(825 * 24 * time.Hour) }},
		"Z2": {spoil: func(c *x509.Certificate) { c.SerialNumber = big.NewInt(5) }},
		"Z3": {spoil: func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }},
		"Z4": {spoil: func(c *x509.Certificate) { c.Subject.ExtraNames = c.Subject.ExtraNames[1:] }},
		"Z5": {spoil: func(c *x509.Certificate) { c.Subject.PostalCode = []string{"12345"} }},
		"Z6": {spoil: func(c *x509.Certificate) {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, name([]int{2, 5, 4, 65}, "Al"))
		}},
		"Z7":  {public: modulus(t, 2049)},
		"Z8":  {public: modulus(t, 1024)},
		"Z9":  {public: ecPublic(t, elliptic.P224())},
		"Z10": {public: nearPrimes(t, 2048)},
	}
	for check, c := range cases {
		t.Run(check, func(t *testing.T) {
			template, public := sponsor(t), c.public
			if c.spoil != nil {
				c.spoil(template)
			}
			if public == nil {
				public = ecPublic(t, elliptic.P256())
			}
			der := sign(t, template, public)
			if !slices.ContainsFunc(linter.Findings(der), func(f Finding) bool { return f.Check == check && !f.Warning }) {
				t.Errorf("%s does not find what is planted: %v", check, linter.Findings(der))
			}
			if linter.Check(der) == nil {
				t.Error("the certificate is not refused")
			}
		})
	}
}

func TestForeignNames(t *testing.T) {
	linter, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*x509.Certificate){
		"ip": func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} },
		"upn": func(c *x509.Certificate) {
			c.EmailAddresses = nil
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: upnName(t)}}
		},
	} {
		template := sponsor(t)
		spoil(template)
		if linter.Check(sign(t, template, ecPublic(t, elliptic.P256()))) == nil {
			t.Errorf("a certificate with %s in the SAN is not refused", what)
		}
	}
}

// upnName is a SAN with Microsoft's user principal name as otherName.
func upnName(t *testing.T) []byte {
	t.Helper()
	type otherName struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"explicit,tag:0,utf8"`
	}
	inner, err := asn1.MarshalWithParams(otherName{asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, "alice@corp"}, "tag:0")
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{FullBytes: inner}})
	if err != nil {
		t.Fatal(err)
	}
	return san
}

func TestZlintRefuses(t *testing.T) {
	linter, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*x509.Certificate){
		"legacy policy":  func(c *x509.Certificate) { c.Policies = []x509.OID{oid(t, "2.23.140.1.5.3.1")} },
		"no CRL":         func(c *x509.Certificate) { c.CRLDistributionPoints = nil },
		"ldap in AIA":    func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"ldap://pki.example.com/ca"} },
		"second EKU":     func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) },
		"no SAN":         func(c *x509.Certificate) { c.EmailAddresses = nil },
		"EC encipherent": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
	} {
		template := sponsor(t)
		spoil(template)
		if linter.Check(sign(t, template, ecPublic(t, elliptic.P256()))) == nil {
			t.Errorf("a certificate with %s is not refused", what)
		}
	}
	if linter.Check([]byte("no certificate")) == nil {
		t.Error("rubbish is not refused")
	}
}

// nearPrimes makes a modulus of two primes next to each other.
func nearPrimes(t testing.TB, bits int) *rsa.PublicKey {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits/2)
	if err != nil {
		t.Fatal(err)
	}
	q := new(big.Int).Add(p, big.NewInt(2))
	for !q.ProbablyPrime(20) {
		q.Add(q, big.NewInt(2))
	}
	return &rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}
}

// TestFermatAgreesWithZlint holds our check beside the lint that it replaces:
// over products of factors at growing distance, so that both sides of the last
// round are met.
func TestFermatAgreesWithZlint(t *testing.T) {
	original := zlint.GlobalRegistry().CertificateLints().ByName(replaced()[0])
	if original == nil {
		t.Fatal("zlint has the lint no more")
	}
	template := sponsor(t)
	refusals := 0
	for shift := range 40 {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		// Fermat needs about d²/(8√n) rounds for factors d apart: from 0 to far over 100.
		d := new(big.Int).Lsh(big.NewInt(2), uint(500+shift))
		key := &rsa.PublicKey{N: new(big.Int).Mul(p, new(big.Int).Add(p, d)), E: 65537}
		der := sign(t, template, key)
		parsed, err := zx509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		theirs := original.Execute(parsed, zlint.NewEmptyConfig()).Status >= zlint.Error
		ours := closePrimes(key.N)
		if ours != theirs {
			t.Errorf("factors 2^%d apart: we say %v, zlint %v", 501+shift, ours, theirs)
		}
		if ours {
			refusals++
		}
	}
	if refusals == 0 || refusals == 40 {
		t.Errorf("%d of 40 refused: the test does not meet both sides", refusals)
	}
}

func BenchmarkCheck(b *testing.B) {
	linter, err := New()
	if err != nil {
		b.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		b.Fatal(err)
	}
	for kind, public := range map[string]crypto.PublicKey{"p-256": ecPublic(b, elliptic.P256()), "rsa-3072": &key.PublicKey} {
		template := sponsor(b)
		der := sign(b, template, public)
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if err := linter.Check(der); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
