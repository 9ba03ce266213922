package policy_test

import (
	"encoding/pem"
	"testing"
	"time"

	"smime-agent/server-stub/policy"
)

// FuzzPartnerFile: whatever a partner sends, it is taken or refused in words,
// and nothing with a private key is taken.
func FuzzPartnerFile(f *testing.F) {
	const rules = "organization: {name: E, country: DE, identifier: NTRDE-DER3306.HRB12345}\npartners: [p.pem]\n" +
		"rules: [{departments: ['*'], profiles: [mailbox-dual]}]\n"
	const people = "account,mailbox,department\na,a@example.com,IT\n"
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0}}))
	f.Add([]byte{0x30, 0x80, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02, 0xa0, 0x80})
	f.Fuzz(func(t *testing.T, content []byte) {
		_, err := policy.Parse(policy.Source{Name: "policy.yaml", Data: []byte(rules)}, policy.Source{Name: "people.csv", Data: []byte(people)},
			policy.Catalog{Profiles: []string{"mailbox-dual"}, Partners: []policy.PartnerFile{{Name: "p.pem", Content: content}}, Now: time.Now()})
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
		}
	})
}
