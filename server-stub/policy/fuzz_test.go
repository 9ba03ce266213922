package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/policy"
)

// FuzzPartnerFile: whatever a partner sends, it is taken or refused in words,
// and nothing with a private key is taken.
func FuzzPartnerFile(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0}}))
	f.Add([]byte{0x30, 0x80, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02, 0xa0, 0x80})
	person := partner(f)
	key := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{0x30, 0}})
	if parsePartner(person) != nil || parsePartner(slices.Concat(person, key)) == nil {
		f.Fatal("the fuzzer begins with nothing that is taken, or with a key that is")
	}
	f.Add(person)
	f.Add(slices.Concat(person, key))
	f.Fuzz(func(t *testing.T, content []byte) {
		err := parsePartner(content)
		wrong, ok := err.(*policy.Error) //nolint:errorlint // Parse gives no other
		if err != nil && !ok {
			t.Fatal(err)
		}
		if ok {
			for _, p := range wrong.Problems {
				if p.What == "" || p.Cure == "" || p.Line < 1 {
					t.Errorf("%+v", p)
				}
			}
			return
		}
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			if strings.Contains(block.Type, "PRIVATE KEY") {
				t.Error("a file with a private key is taken")
			}
		}
	})
}

func parsePartner(content []byte) error {
	const rules = "organization: {name: E, country: DE, identifier: NTRDE-DER3306.HRB12345}\npartners: [p.pem]\n" +
		"rules: [{departments: ['*'], profiles: [mailbox-dual]}]\n"
	const people = "account,mailbox,department\na,a@example.com,IT\n"
	_, err := policy.Parse(policy.Source{Name: "policy.yaml", Data: []byte(rules)}, policy.Source{Name: "people.csv", Data: []byte(people)},
		policy.Catalog{Profiles: []string{"mailbox-dual"}, Partners: []policy.PartnerFile{{Name: "p.pem", Content: content}}, Now: time.Now()})
	return err
}

// partner is the certificate of somebody elsewhere, PEM.
func partner(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0), EmailAddresses: []string{"p@example.org"},
		KeyUsage: x509.KeyUsageKeyAgreement, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
