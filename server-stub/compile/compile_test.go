package compile_test

import (
	"testing"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/compile"
	"smime-agent/server-stub/policy"
)

// TestLife: agents take what a profile's CA issues. Another CA than the server's own
// issues for longer than a year.
func TestLife(t *testing.T) {
	for name, own := range map[string]bool{"": true, "est": false} {
		rules := "organization: {name: Example, country: DE, identifier: NTRDE-DER3306.HRB12345}\n" +
			"rules: [{departments: ['*'], profiles: [mailbox-dual]}]\n" + "profiles: {mailbox-dual: {ca: '" + name + "'}}\n"
		p, err := policy.Parse(policy.Source{Name: "policy.yaml", Data: []byte(rules)},
			policy.Source{Name: "people.csv", Data: []byte("account,mailbox,department\nalice,alice@example.com,IT\n")},
			policy.Catalog{Profiles: []string{"mailbox-dual"}, CAs: []string{"est"}})
		if err != nil {
			t.Fatal(err)
		}
		want := authority.MaxLife
		if own {
			want = ca.Life
		}
		profiles := compile.Policy(p, []*controlv1.UserPresence{{User: "1", Account: "alice"}}, nil).GetProfiles()
		if len(profiles) != 1 || profiles[0].GetMaxValidity().AsDuration() != want {
			t.Errorf("with CA %q agents are told %v, want %v", name, profiles, want)
		}
	}
}
