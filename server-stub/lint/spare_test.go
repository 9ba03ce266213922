package lint

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// drafted gives a certificate the signature of another, as the CA's drafts all
// have the same void one.
func drafted(t testing.TB, der, signed []byte) []byte {
	t.Helper()
	var body, rest, tbs cryptobyte.String
	input, other := cryptobyte.String(der), cryptobyte.String(signed)
	if !input.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!other.ReadASN1(&rest, cbasn1.SEQUENCE) || !rest.SkipASN1(cbasn1.SEQUENCE) {
		t.Fatal("not a certificate")
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(tbs); b.AddBytes(rest) })
	return b.BytesOrPanic()
}

// variants are certificates that differ from [sponsor] in what a skeleton leaves
// out, good and bad.
func variants(t testing.TB) map[string]func(*x509.Certificate) {
	subject := func(change func(*pkix.Name)) func(*x509.Certificate) {
		return func(c *x509.Certificate) { change(&c.Subject) }
	}
	extra := func(numbers []int, value string) func(*x509.Certificate) {
		return subject(func(n *pkix.Name) { n.ExtraNames = append(n.ExtraNames, name(numbers, value)) })
	}
	all := map[string]func(*x509.Certificate){
		"plain":          func(*x509.Certificate) {},
		"umlauts":        subject(func(n *pkix.Name) { n.CommonName = "Jürgen Müller" }),
		"Chinese":        subject(func(n *pkix.Name) { n.CommonName = "王小明" }),
		"mixed up":       subject(func(n *pkix.Name) { n.CommonName = "JÃ¼rgen" }),
		"leading space":  subject(func(n *pkix.Name) { n.CommonName = " Alice" }),
		"trailing space": subject(func(n *pkix.Name) { n.Organization = []string{"Example GmbH "} }),
		"control":        subject(func(n *pkix.Name) { n.CommonName = "Ali\x07ce" }),
		"entity":         subject(func(n *pkix.Name) { n.CommonName = "A &amp; B" }),
		"long":           subject(func(n *pkix.Name) { n.CommonName = string(make([]byte, 70)) }),
		"lower country":  subject(func(n *pkix.Name) { n.Country = []string{"de"} }),
		"two in one RDN": subject(func(n *pkix.Name) { n.OrganizationalUnit = []string{"A", "B"} }),
		"pseudonym":      extra([]int{2, 5, 4, 65}, "Al"),
		"street":         subject(func(n *pkix.Name) { n.StreetAddress = []string{"Main Street 1"} }),
		"no O":           subject(func(n *pkix.Name) { n.Organization = nil }),
		"mail in DN":     extra([]int{1, 2, 840, 113549, 1, 9, 1}, "other@example.com"),
		"small serial":   func(c *x509.Certificate) { c.SerialNumber = big.NewInt(5) },
		"long life":      func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(900 * 24 * time.Hour) },
		"ended":          func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) },
		"far":            func(c *x509.Certificate) { c.NotAfter = time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC) },
		"before":         func(c *x509.Certificate) { c.NotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) },
		"two mailboxes":  func(c *x509.Certificate) { c.EmailAddresses = append(c.EmailAddresses, "b@example.com") },
		"odd mailbox":    func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b@c"} },
		"empty mailbox":  func(c *x509.Certificate) { c.EmailAddresses = []string{""} },
		"no subject":     func(c *x509.Certificate) { c.Subject = pkix.Name{} },
		"critical names": func(c *x509.Certificate) {
			san := []byte("\x30\x13\x81\x11alice@example.com")
			c.EmailAddresses = nil
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}}
		},
		"no mailbox":   func(c *x509.Certificate) { c.EmailAddresses = nil },
		"DNS":          func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} },
		"other key ID": func(c *x509.Certificate) { c.SubjectKeyId = []byte("12345678901234567890") },
		"sign only":    func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement },
		"wrong use":    func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"legacy":       func(c *x509.Certificate) { c.Policies = []x509.OID{oid(t, "2.23.140.1.5.3.1")} },
		"no list":      func(c *x509.Certificate) { c.CRLDistributionPoints = nil },
		"upn": func(c *x509.Certificate) {
			c.EmailAddresses = nil
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: []byte{0x30, 0}}}
		},
	}
	return all
}

// corpus are drafts of all variants with some kinds of key.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	signature := sign(t, sponsor(t), ecPublic(t, elliptic.P256()))
	all := map[string][]byte{}
	for what, vary := range variants(t) {
		for kind, public := range map[string]crypto.PublicKey{
			"P-256": ecPublic(t, elliptic.P256()), "P-384": ecPublic(t, elliptic.P384()), "P-224": ecPublic(t, elliptic.P224()),
			"RSA": modulus(t, 2048), "2049 bits": modulus(t, 2049), "1024 bits": modulus(t, 1024),
		} {
			template := sponsor(t)
			vary(template)
			all[what+", "+kind] = drafted(t, sign(t, template, public), signature)
		}
	}
	return all
}

// unspared is what all lints find in a certificate that is parsed in full.
func (l *Linter) unspared(t *testing.T, der []byte) (all []string) {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return []string{"parse"}
	}
	findings := own(cert)
	parsed, err := zx509.ParseCertificate(der)
	if err != nil {
		return append(words(findings), "parse-zcrypto")
	}
	for _, list := range [][]Finding{l.run(l.fixed, parsed), l.run(l.others, parsed), l.run(l.ofSubject, parsed)} {
		findings = append(findings, list...)
	}
	return words(findings)
}

func words(findings []Finding) (all []string) {
	for _, f := range findings {
		text := fmt.Sprintf("%s %s %v", f.Check, f.Detail, f.Warning)
		if f.Check == "parse" || f.Check == "parse-zcrypto" {
			text = f.Check
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

// TestSparedFindsTheSame has one linter judge certificates of all kinds again and
// again, in any order, so that each follows each; what it finds is what all lints
// find in the certificate alone.
func TestSparedFindsTheSame(t *testing.T) {
	linter, err := New()
	if err != nil {
		t.Fatal(err)
	}
	certificates, clean, hits := corpus(t), 0, 0
	for round := range 3 {
		for what, der := range certificates { // in another order each time
			want := linter.unspared(t, der)
			if got := words(linter.Findings(der)); !slices.Equal(got, want) {
				t.Errorf("round %d, %s: found %q, want %q", round, what, got, want)
			}
			if len(want) == 0 {
				clean++
			}
			if p, ok := split(der); ok {
				cert, err := x509.ParseCertificate(der)
				if err == nil && linter.skeletons.find(p, cert.NotBefore) != nil {
					hits++
				}
			}
		}
	}
	if clean == 0 || hits == 0 || clean == 3*len(certificates) {
		t.Errorf("%d clean and %d of a known kind of %d: the test does not meet both sides", clean, hits, 3*len(certificates))
	}
}

// TestSpliceIsWhatZcryptoReads holds a certificate that was put together beside
// the one that zcrypto parses.
func TestSpliceIsWhatZcryptoReads(t *testing.T) {
	samples, compared := map[string]*zx509.Certificate{}, 0
	for round := range 2 {
		for what, der := range corpus(t) {
			p, ok := split(der)
			cert, err := x509.ParseCertificate(der)
			whole, zerr := zx509.ParseCertificate(der)
			if !ok || err != nil || zerr != nil {
				continue
			}
			sample := samples[p.skeleton]
			if sample == nil {
				samples[p.skeleton] = whole
				continue
			}
			got, err := splice(sample, p, der, cert)
			if err != nil {
				t.Errorf("round %d, %s: %v", round, what, err)
				continue
			}
			compared++
			got.ValidationLevel = whole.ValidationLevel
			got.FingerprintMD5, got.FingerprintSHA1, got.FingerprintSHA256 = whole.FingerprintMD5, whole.FingerprintSHA1, whole.FingerprintSHA256
			got.SPKIFingerprint, got.SPKISubjectFingerprint = whole.SPKIFingerprint, whole.SPKISubjectFingerprint
			got.TBSCertificateFingerprint, got.FingerprintNoCT = whole.TBSCertificateFingerprint, whole.FingerprintNoCT
			if !reflect.DeepEqual(got, whole) {
				for i := range reflect.TypeOf(*got).NumField() {
					if a, b := reflect.ValueOf(*got).Field(i), reflect.ValueOf(*whole).Field(i); a.CanInterface() && !reflect.DeepEqual(a.Interface(), b.Interface()) {
						t.Errorf("%s: %s is %v, want %v", what, reflect.TypeOf(*got).Field(i).Name, a, b)
					}
				}
			}
		}
	}
	if compared < 20 {
		t.Errorf("only %d were compared", compared)
	}
}

// FuzzPlain wants what is plain to pass the lints that are then left out.
func FuzzPlain(f *testing.F) {
	linter, err := New()
	if err != nil {
		f.Fatal(err)
	}
	public := ecPublic(f, elliptic.P256())
	for _, text := range []string{"Alice Example", " a", "a ", "Müller", "王", "A & B", "x@example.com", "a\x00b", "Ã¼", "*", "a_b", "a  b"} {
		f.Add(text, "DE", true)
		f.Add("Alice", text, false)
	}
	f.Fuzz(func(t *testing.T, text, country string, wide bool) {
		template := sponsor(t)
		template.Subject.CommonName, template.Subject.Country = text, []string{country}
		if wide {
			template.Subject.ExtraNames = append(template.Subject.ExtraNames, pkix.AttributeTypeAndValue{
				Type: asn1.ObjectIdentifier{2, 5, 4, 12}, Value: text,
			})
		}
		name, err := asn1.Marshal(template.Subject.ToRDNSequence())
		if err != nil || !plain(name) {
			return
		}
		parsed, err := zx509.ParseCertificate(sign(t, template, public))
		if err != nil {
			t.Skip()
		}
		if found := linter.run(linter.ofSubject, parsed); len(found) > 0 {
			t.Errorf("%q, %q is plain, and zlint finds %v", text, country, found)
		}
	})
}

// TestManyAtOnce has one linter judge certificates in several goroutines, as a
// busy server does: what one of them looks at is no other's. (The race detector
// sees what zcrypto remembers in a certificate.)
func TestManyAtOnce(t *testing.T) {
	linter, err := New()
	if err != nil {
		t.Fatal(err)
	}
	certificates := corpus(t)
	want := map[string][]string{}
	for what, der := range certificates {
		want[what] = linter.unspared(t, der)
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for what, der := range certificates {
				if got := words(linter.Findings(der)); !slices.Equal(got, want[what]) {
					t.Errorf("%s: found %q, want %q", what, got, want[what])
				}
			}
		})
	}
	wait.Wait()
}
