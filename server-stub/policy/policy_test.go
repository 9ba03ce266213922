package policy

import (
	"errors"
	"strings"
	"testing"
)

func testCatalog() Catalog {
	return Catalog{Profiles: []string{"employee-dual", "employee-sign", "mailbox-dual"}, Keys: []string{"rsa-3072", "p-256"}}
}

const goodRules = `organization:
  name: Example GmbH
  country: DE
  identifier: NTRDE-DER3306.HRB12345
contact: helpdesk@example.com
approval: auto
install_anchors: true
profiles:
  employee-dual: {keys: [p-256], min_protection: hardware, generation: "2"}
rules:
  - departments: [Sales, 销售]
    profiles: [employee-dual]
    consent: notify
    renewal: {before: 30d, rotation: same-key}
    modules: [{path: /usr/lib/p11.so, token_label: card}]
    note: {zh: "您好"}
  - departments: ["*"]
    profiles: [mailbox-dual]
    approval: administrator
`

const goodPeople = "account,mailbox,given_name,surname,display_name,department\n" +
	"alice,alice@example.com a@example.com,Alice,Example,,Sales\n" +
	`CORP\wang,wang@example.com,小明,王,王小明,销售` + "\n" +
	"bob@corp.example,bob@example.com,,,,IT\n"

func parse(rules, people string) (*Policy, error) {
	return Parse(Source{"policy.yaml", []byte(rules)}, Source{"people.csv", []byte(people)}, testCatalog())
}

func TestGrants(t *testing.T) {
	for form, people := range map[string]string{
		"plain": goodPeople, "bom": "\xef\xbb\xbf" + goodPeople,
		"semicolon": strings.ReplaceAll(goodPeople, ",", ";"), "crlf": strings.ReplaceAll(goodPeople, "\n", "\r\n"),
	} {
		t.Run(form, func(t *testing.T) {
			p, err := parse(goodRules, people)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range []struct{ account, upn, mailbox string }{
				{"alice", "", "alice@example.com"}, {"ALICE", "", "alice@example.com"}, {`ANY\Alice`, "", "alice@example.com"},
				{`corp\WANG`, "", "wang@example.com"}, {"wang", "", ""}, {`OTHER\wang`, "", ""},
				{"bob", "Bob@Corp.Example", "bob@example.com"}, {"bob@corp.example", "", "bob@example.com"}, {"bob", "", ""},
				{"", "", ""}, {"mallory", "", ""},
			} {
				grants := p.Grants(row.account, row.upn)
				got := ""
				if len(grants) > 0 {
					got = grants[0].Person.Mailboxes[0]
				}
				if got != row.mailbox || len(grants) > 1 {
					t.Errorf("%q, %q: %d grants, first %q, want %q", row.account, row.upn, len(grants), got, row.mailbox)
				}
			}
			wang := p.Grants(`CORP\wang`, "")[0]
			if wang.Person.CommonName() != "王小明" || wang.Rule.Consent != ConsentNotify || wang.Rule.RenewBefore.Hours() != 720 {
				t.Errorf("wang gets %+v", wang)
			}
			if bob := p.Grants("", "bob@corp.example")[0]; bob.Profile != "mailbox-dual" || bob.Rule.Approval != Administrator {
				t.Errorf("bob gets %+v", bob)
			}
		})
	}
}

func TestCommentsMayHaveRules(t *testing.T) {
	if _, err := parse("# "+strings.Repeat("-", 80)+"\n"+goodRules, goodPeople); err != nil {
		t.Error(err)
	}
}

func TestBadFiles(t *testing.T) {
	swap := func(old, with string) string {
		if !strings.Contains(goodRules, old) {
			t.Fatalf("%q is not in the rules", old)
		}
		return strings.Replace(goodRules, old, with, 1)
	}
	for _, row := range []struct{ name, rules, people, want string }{
		{"unknown key", swap("contact:", "contcat:"), goodPeople, "policy.yaml:5:"},
		{"unknown profile", swap("profiles: [employee-dual]", "profiles: [employee-dial]"), goodPeople, "policy.yaml:12:"},
		{"profile twice", swap("profiles: [mailbox-dual]", "profiles: [mailbox-dual, mailbox-dual]"), goodPeople, "policy.yaml:18:"},
		{"bad consent", swap("consent: notify", "consent: maybe"), goodPeople, "policy.yaml:13:"},
		{"bad time", swap("before: 30d", "before: soon"), goodPeople, "policy.yaml:14:"},
		{"long time", swap("before: 30d", "before: 400d"), goodPeople, "policy.yaml:14:"},
		{"bad key kind", swap("keys: [p-256]", "keys: [p-25519]"), goodPeople, "policy.yaml:9:"},
		{"bad approval", swap("approval: auto", "approval: never"), goodPeople, "policy.yaml:6:"},
		{"bad mail word", swap("approval: administrator", "mail: {sign: sometimes}"), goodPeople, "policy.yaml:19:"},
		{"bad mail program", swap("approval: administrator", "mail: {programs: [pine]}"), goodPeople, "policy.yaml:19:"},
		{"bad hash", swap("approval: administrator", "mail: {hash: md5}"), goodPeople, "policy.yaml:19:"},
		{"all programs and one", swap("approval: administrator", "mail: {programs: ['*', outlook]}"), goodPeople, "policy.yaml:19:"},
		{"mail without programs", swap("approval: administrator", "mail: {programs: [], sign: always}"), goodPeople, "policy.yaml:19:"},
		{"bad country", swap("country: DE", "country: Germany"), goodPeople, "policy.yaml:3:"},
		{"bad identifier", swap("NTRDE-DER3306.HRB12345", "HRB 12345"), goodPeople, "policy.yaml:4:"},
		{"not YAML", "organization: [", goodPeople, "policy.yaml:1:"},
		{"empty", "", goodPeople, "policy.yaml:1:"},
		{"alias", swap("name: Example GmbH", "name: &n Example GmbH"), goodPeople, "policy.yaml:1:"},
		{"brackets without end", goodRules + "x: " + strings.Repeat("[", 50000), goodPeople, "policy.yaml:20:"},
		{"dashes without end", strings.Repeat("- ", 50000), goodPeople, "policy.yaml:1:"},
		{"not UTF-8", goodRules + "# \xff", goodPeople, "policy.yaml:1:"},
		{"no heading", goodRules, "", "people.csv:1:"},
		{"unknown column", goodRules, "account,mailbox,department,salary\n", "people.csv:1:"},
		{"missing column", goodRules, "account,mailbox\n", "people.csv:1:"},
		{"bad mailbox", goodRules, goodPeople + "x,not-a-mailbox,,,,IT\n", "people.csv:5:"},
		{"unicode mailbox", goodRules, goodPeople + "x,王@example.com,,,,IT\n", "people.csv:5:"},
		{"no mailbox", goodRules, goodPeople + "x,,,,,IT\n", "people.csv:5:"},
		{"no names", goodRules, goodPeople + "x,x@example.com,,,,Sales\n", "people.csv:5:"},
		{"twice", goodRules, goodPeople + "ALICE,alice@example.com,A,E,,Sales\n", "people.csv:5:"},
		{"too few fields", goodRules, goodPeople + "x,x@example.com\n", "people.csv:5:"},
		{"no department", goodRules, goodPeople + "x,x@example.com,,,,\n", "people.csv:5:"},
		{"control character", goodRules, goodPeople + "x,x@example.com,\x1b[31m,E,,IT\n", "people.csv:5:"},
	} {
		p, err := parse(row.rules, row.people)
		problems, ok := errors.AsType[*Error](err)
		if !ok || p != nil {
			t.Errorf("%s: taken, or another error: %v", row.name, err)
			continue
		}
		if !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %q does not name %s", row.name, err, row.want)
		}
		for _, problem := range problems.Problems {
			if problem.What == "" || problem.Cure == "" {
				t.Errorf("%s: %+v has no sentence or no cure", row.name, problem)
			}
		}
	}
}

func TestChanges(t *testing.T) {
	before, err := parse(goodRules, goodPeople)
	if err != nil {
		t.Fatal(err)
	}
	after, err := parse(goodRules, strings.Replace(goodPeople, "alice,", "eve,", 1))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(before.Changes(after), "; ")
	if want := "person added: eve alice@example.com; person removed: alice alice@example.com"; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	mail, err := parse(strings.Replace(goodRules, "approval: administrator", "mail: {programs: [outlook], sign: always, cipher: aes-256}", 1), goodPeople)
	if err != nil {
		t.Fatal(err)
	}
	got = strings.Join(before.Changes(mail), "; ")
	if want := "rule changed: *: mail.programs [*] -> [outlook]; rule changed: *: mail.sign user-decides -> always; " +
		"rule changed: *: mail.cipher (none) -> aes-256; rule changed: *: approval administrator -> auto"; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	if again := before.Changes(before); len(again) != 0 {
		t.Errorf("no change gives %q", again)
	}
}

func FuzzRules(f *testing.F) {
	f.Add(goodRules)
	f.Add("rules: [[[[[[[")
	f.Add("a: &a [*a, *a]")
	f.Fuzz(func(t *testing.T, rules string) { judge(t, rules, goodPeople) })
}

func FuzzPeople(f *testing.F) {
	f.Add(goodPeople)
	f.Add("account;mailbox;department\n\"a;b;c")
	f.Fuzz(func(t *testing.T, people string) { judge(t, goodRules, people) })
}

// judge holds what is taken against what certificates can bear.
func judge(t *testing.T, rules, people string) {
	t.Helper()
	p, err := parse(rules, people)
	if err != nil {
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Fatalf("an error of another kind: %v", err)
		}
		return
	}
	for _, person := range p.People {
		if person.Account == "" || len(person.Mailboxes) == 0 {
			t.Errorf("a person without account or mailbox was taken: %+v", person)
		}
		for _, m := range person.Mailboxes {
			if !validMailbox(m) {
				t.Errorf("mailbox %q was taken", m)
			}
		}
		p.Grants(person.Account, person.Account)
	}
}
