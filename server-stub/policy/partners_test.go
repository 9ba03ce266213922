package policy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"smime-agent/server-stub/policy"
)

type maker struct {
	t   *testing.T
	key *ecdsa.PrivateKey
	ca  *x509.Certificate
	n   int64
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{t: t, key: key}
	m.ca = m.make(func(c *x509.Certificate) {
		c.Subject.CommonName, c.EmailAddresses = "Partner CA", nil
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	})
	return m
}

func (m *maker) make(change func(*x509.Certificate)) *x509.Certificate {
	m.t.Helper()
	m.n++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(m.n), Subject: pkix.Name{CommonName: "Bob"}, EmailAddresses: []string{"bob@partner.example"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(200 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	change(c)
	parent := m.ca
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, m.key.Public(), m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return cert
}

func (m *maker) p7b(certs ...*x509.Certificate) []byte {
	m.t.Helper()
	var all []byte
	for _, c := range certs {
		all = append(all, c.Raw...)
	}
	out, err := pkcs7.DegenerateCertificate(all)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

const partnerRules = `organization: {name: "Example GmbH", country: DE, identifier: "NTRDE-DER3306.HRB12345"}
rules: [{departments: ["*"], profiles: [employee-dual]}]
partners: [partners, one.pem]
`

func parsePartners(files ...policy.PartnerFile) (*policy.Policy, error) {
	return policy.Parse(policy.Source{Name: "policy.yaml", Data: []byte(partnerRules)},
		policy.Source{Name: "people.csv", Data: []byte("account,mailbox,given_name,surname,department\na,a@example.com,A,A,IT\n")},
		policy.Catalog{Profiles: []string{"employee-dual"}, Partners: files, Now: now})
}

// TestPartners: what is wrong with a file is said with file, line and cure, and
// what is not wrong is in the set, once.
func TestPartners(t *testing.T) {
	m := newMaker(t)
	good := m.make(func(*x509.Certificate) {})
	text := func(certs ...*x509.Certificate) []byte {
		out := []byte("subject=Bob\n")
		for _, c := range certs {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		return out
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		t.Fatal(err)
	}
	one := policy.PartnerFile{Name: "one.pem", Content: text(good)}
	sub := &maker{t: t, key: m.key, ca: m.make(func(c *x509.Certificate) {
		c.Subject.CommonName, c.EmailAddresses = "Partner issuing CA", nil
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	})}
	for name, c := range map[string]struct {
		content       []byte
		set           int
		refused, warn string
	}{
		"DER":             {good.Raw, 1, "", ""},
		"PEM, the same":   {text(good, good), 1, "", ""},
		"PKCS 7 with CA":  {m.p7b(m.make(func(*x509.Certificate) {}), m.ca), 2, "", ""},
		"with its issuer": {m.p7b(sub.make(func(*x509.Certificate) {}), sub.ca, m.ca), 3, "", ""},
		"an issuer alone": {text(good, sub.ca), 0, "is that of a CA, not of a person", ""},
		"a CA alone":      {text(good, newMaker(t).ca), 0, "partners/x.cer:12: The certificate of \"Partner CA\" is that of a CA", ""},
		"no address":      {m.make(func(c *x509.Certificate) { c.EmailAddresses = nil }).Raw, 0, "names no e-mail address", ""},
		"for servers":     {m.make(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }).Raw, 0, "not for e-mail", ""},
		"for signing":     {m.make(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }).Raw, 0, "for signing only", ""},
		"ended":           {m.make(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }).Raw, 1, "", "ended on 2026-11-28 and is left out"},
		"ends soon":       {m.make(func(c *x509.Certificate) { c.NotAfter = now.Add(24 * time.Hour) }).Raw, 2, "", "ends on 2026-11-29"},
		"a private key":   {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0, "There is a private key in the file.", ""},
		"a broken key":    {append([]byte("-----BEGIN RSA PRIVATE KEY-----\n!\n-----END RSA PRIVATE KEY-----\n"), text(good)...), 0, "There is a private key in the file.", ""},
		"not valid yet":   {m.make(func(c *x509.Certificate) { c.NotBefore = now.Add(48 * time.Hour) }).Raw, 2, "", "begins on 2026-11-30"},
		"something else":  {[]byte("hello"), 0, "neither a certificate nor", ""},
		"broken PEM":      {[]byte("\n-----BEGIN CERTIFICATE-----\n!"), 0, "partners/x.cer:2: The PEM text", ""},
		"empty PKCS 7":    {m.p7b(), 0, "no certificate in the file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parsePartners(one, policy.PartnerFile{Name: "partners/x.cer", Content: c.content})
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Partners.Certificates) != c.set {
				t.Errorf("%d certificates, want %d", len(p.Partners.Certificates), c.set)
			}
			if c.warn != "" && (len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].String(), c.warn)) || c.warn == "" && len(p.Warnings) > 0 {
				t.Errorf("warnings %v, want %q", p.Warnings, c.warn)
			}
		})
	}
}

func TestPartnersAreNamed(t *testing.T) {
	m := newMaker(t)
	good := m.make(func(*x509.Certificate) {})
	if _, err := parsePartners(policy.PartnerFile{Name: "one.pem", Content: good.Raw}); err == nil || !strings.Contains(err.Error(), `policy.yaml:3: No certificate was found at "partners".`) {
		t.Errorf("a folder without files: %v", err)
	}
	p, err := parsePartners(policy.PartnerFile{Name: "one.pem", Content: good.Raw}, policy.PartnerFile{Name: "partners/a.cer", Content: good.Raw},
		policy.PartnerFile{Name: "elsewhere.cer", Content: m.make(func(*x509.Certificate) {}).Raw})
	if err != nil || len(p.Partners.Certificates) != 1 {
		t.Errorf("a file that nobody named was taken: %v", err)
	}
	if got := policy.PartnerPaths([]byte(partnerRules)); len(got) != 2 || got[0] != "partners" {
		t.Errorf("paths %q", got)
	}
}

// TestPartnersAreInOneOrder: the same files make the same set and the same warnings,
// in whatever order they come.
func TestPartnersAreInOneOrder(t *testing.T) {
	m := newMaker(t)
	files := []policy.PartnerFile{{Name: "one.pem", Content: m.make(func(*x509.Certificate) {}).Raw}}
	for _, name := range []string{"partners/a.cer", "partners/b.cer", "partners/c.cer"} {
		soon := m.make(func(c *x509.Certificate) { c.NotAfter = now.Add(time.Duration(m.n) * time.Hour) })
		files = append(files, policy.PartnerFile{Name: name, Content: soon.Raw})
	}
	first, err := parsePartners(files...)
	if err != nil || len(first.Partners.Certificates) != 4 || len(first.Warnings) != 3 {
		t.Fatalf("%v, %v", first, err)
	}
	slices.Reverse(files)
	second, err := parsePartners(files...)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(first.Partners.Raw(), second.Partners.Raw(), bytes.Equal) || first.Partners.Digest != second.Partners.Digest {
		t.Error("the sets differ")
	}
	if !slices.Equal(first.Warnings, second.Warnings) {
		t.Errorf("warnings %v and %v", first.Warnings, second.Warnings)
	}
}
