package policy

import (
	"errors"
	"fmt"
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
		{"two documents", goodRules + "---\n" + goodRules, goodPeople, "policy.yaml:20:"},
		{"a key twice", goodRules + "contact: other@example.com\n", goodPeople, "policy.yaml:20:"},
		{"NUL", swap("helpdesk@", "help\x00desk@"), goodPeople, "policy.yaml:"},
		{"NUL in a name", swap("Example GmbH", `"Example\0 GmbH"`), goodPeople, "policy.yaml:2:"},
		{"turned name", swap("Example GmbH", "Example \u202eHbmG"), goodPeople, "policy.yaml:2:"},
		{"not a yes", swap("install_anchors: true", "install_anchors: maybe"), goodPeople, "policy.yaml:7:"},
		{"half a postponement", swap("approval: administrator", "max_postponements: 2.5"), goodPeople, "policy.yaml:19:"},
		{"less than none", swap("approval: administrator", "max_postponements: -1"), goodPeople, "policy.yaml:19:"},
		{"far too many", swap("approval: administrator", "max_postponements: 4294967296"), goodPeople, "policy.yaml:19:"},
		{"too many", swap("approval: administrator", "max_postponements: 1001"), goodPeople, "policy.yaml:19:"},
		{"a department without name", swap(`["*"]`, `["*", " "]`), goodPeople, "policy.yaml:17:"},
		{"departments as one word", swap(`["*"]`, `Sales`), goodPeople, "policy.yaml:17:"},
		{"list for a word", swap("consent: notify", "consent: [notify]"), goodPeople, "policy.yaml:13:"},
		{"more stores than agents take", swap("approval: administrator", "stores: ["+strings.Repeat("a, ", 65)+"]"), goodPeople, "policy.yaml:19:"},
		{"a long note", swap("您好", strings.Repeat("好", 2000)), goodPeople, "policy.yaml:16:"},
		{"negative time", swap("before: 30d", "before: -30h"), goodPeople, "policy.yaml:14:"},
		{"overflowing time", swap("before: 30d", "before: 99999999999d"), goodPeople, "policy.yaml:14:"},
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
		{"domain of one word", goodRules, goodPeople + "x,x@example,,,,IT\n", "people.csv:5:"},
		{"domain with a sign", goodRules, goodPeople + "x,x@exa!mple.com,,,,IT\n", "people.csv:5:"},
		{"domain with a line below", goodRules, goodPeople + "x,x@exa_mple.com,,,,IT\n", "people.csv:5:"},
		{"domain with a dash at the end", goodRules, goodPeople + "x,x@example-.com,,,,IT\n", "people.csv:5:"},
		{"domain with two dots", goodRules, goodPeople + "x,x@example..com,,,,IT\n", "people.csv:5:"},
		{"domain in letters of its own", goodRules, goodPeople + "x,x@例子.com,,,,IT\n", "people.csv:5:"},
		{"long local part", goodRules, goodPeople + "x," + strings.Repeat("x", 65) + "@example.com,,,,IT\n", "people.csv:5:"},
		{"mailbox in another case", goodRules, goodPeople + "x,X@Example.com x@example.COM,,,,IT\n", "people.csv:5:"},
		{"NUL in people", goodRules, goodPeople + "x,x@example.com,\x00,E,,IT\n", "people.csv:5:"},
		{"mark in the midst", goodRules, goodPeople + "\ufeffx,x@example.com,,,,IT\n", "people.csv:5:"},
		{"account without width", goodRules, goodPeople + "x\u200b,x@example.com,,,,IT\n", "people.csv:5:"},
		{"name turned round", goodRules, goodPeople + "x,x@example.com,\u202eAlice,E,,IT\n", "people.csv:5:"},
		{"name that was not converted", goodRules, goodPeople + "x,x@example.com,M\ufffdller,E,,IT\n", "people.csv:5:"},
		{"UTF-16", goodRules, "a\x00c\x00c\x00", "people.csv:1:"},
		{"lines of old Macs", goodRules, strings.ReplaceAll(goodPeople, "\n", "\r"), "people.csv:1:"},
		{"open quote", goodRules, goodPeople + "\"x,x@example.com,,,,IT\n", "people.csv:"},
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

// TestGoodFiles: forms that are unusual and mean what they say.
func TestGoodFiles(t *testing.T) {
	for name, c := range map[string]struct{ rules, people string }{
		"mark of Windows":   {"\ufeff" + strings.ReplaceAll(goodRules, "\n", "\r\n"), goodPeople},
		"one document":      {"---\n" + goodRules + "...\n", goodPeople},
		"Norway":            {strings.NewReplacer("country: DE", "country: NO", "NTRDE-DER3306.HRB12345", "NTRNO-123").Replace(goodRules), goodPeople},
		"spaces about":      {strings.Replace(goodRules, "[Sales, 销售]", `[" Sales ", "销售 "]`, 1), goodPeople},
		"joiner in a name":  {goodRules, goodPeople + "x,x@example.com,می\u200cخواهم,E,,IT\n"},
		"A-label":           {goodRules, goodPeople + "x,x@xn--fsqu00a.example,,,,IT\n"},
		"subdomain, digits": {goodRules, goodPeople + "x,x.y+z@1.mail-2.example.com,,,,IT\n"},
		"empty lines":       {goodRules, "\r\n" + strings.ReplaceAll(goodPeople, "\n", "\r\n\r\n")},
	} {
		p, err := parse(c.rules, c.people)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if grants := p.Grants("alice", ""); len(grants) != 1 || grants[0].Profile != "employee-dual" || p.Contact != "helpdesk@example.com" {
			t.Errorf("%s: alice gets %+v", name, grants)
		}
		if len(p.Warnings) > 0 {
			t.Errorf("%s: %v", name, p.Warnings)
		}
	}
}

// TestWarnings: what is good and hardly meant.
func TestWarnings(t *testing.T) {
	everybody := strings.Replace(goodRules, `["*"]`, "[IT]", 1)
	for _, row := range []struct{ name, rules, people, want string }{
		{"nobody", goodRules, "account,mailbox,department\n", "people.csv:1: The file names nobody"},
		{"no rule", everybody, goodPeople + "x,x@example.com,,,,Legal\ny,y@example.com,,,,LEGAL\n", `people.csv:5: No rule names the department "Legal"`},
		{"no postponement", strings.Replace(goodRules, "approval: administrator", "max_postponements: 0", 1), goodPeople, "policy.yaml:19: People can postpone 5 times"},
	} {
		p, err := parse(row.rules, row.people)
		if err != nil || len(p.Warnings) != 1 || !strings.HasPrefix(p.Warnings[0].String(), row.want) {
			t.Errorf("%s: %v, %v, want %q", row.name, p, err, row.want)
		}
	}
	many := goodPeople
	for n := range 40 {
		many += fmt.Sprintf("x%d,x%d@example.com,,,,Team %d\n", n, n, n)
	}
	if p, err := parse(everybody, many); err != nil || len(p.Warnings) != 10 {
		t.Errorf("40 departments without a rule: %v, %v", p, err)
	}
}

// TestAppliedBefore: what an earlier version took stays in force, and is warned of.
func TestAppliedBefore(t *testing.T) {
	for name, c := range map[string]struct{ rules, people string }{
		"documents":     {goodRules + "---\n" + goodRules, goodPeople},
		"control":       {strings.Replace(goodRules, "helpdesk@", "help\u0085desk@", 1), goodPeople},
		"organization":  {strings.Replace(goodRules, "Example GmbH", "Example\u200b GmbH", 1), goodPeople},
		"postponements": {strings.Replace(goodRules, "approval: administrator", "max_postponements: 1001", 1), goodPeople},
		"domain":        {goodRules, goodPeople + "x,x@exa_mple.com,,,,IT\n"},
		"name":          {goodRules, goodPeople + "x,x@example.com,M\ufffdller,E,,IT\n"},
	} {
		catalog := testCatalog()
		if _, err := Parse(Source{"policy.yaml", []byte(c.rules)}, Source{"people.csv", []byte(c.people)}, catalog); err == nil {
			t.Errorf("%s: taken anew", name)
		}
		catalog.Applied = true
		p, err := Parse(Source{"policy.yaml", []byte(c.rules)}, Source{"people.csv", []byte(c.people)}, catalog)
		if err != nil || len(p.Warnings) != 1 || len(p.Grants("alice", "")) != 1 {
			t.Errorf("%s: not taken again: %v", name, err)
		}
	}
	catalog := testCatalog()
	catalog.Applied = true
	half := strings.Replace(goodRules, "approval: administrator", "max_postponements: 2.5", 1)
	if p, err := Parse(Source{"policy.yaml", []byte(half)}, Source{"people.csv", []byte(goodPeople)}, catalog); err != nil || p.Rules[1].MaxPostponements != 2 {
		t.Errorf("half a postponement: %v", err)
	}
}

// TestOrderOfRules: it is said also where something else changed.
func TestOrderOfRules(t *testing.T) {
	file := func(rules ...string) *Policy {
		head, _, _ := strings.Cut(goodRules, "rules:")
		p, err := parse(head+"rules:\n"+strings.Join(rules, ""), goodPeople)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const sales, all, other = "  - {departments: [Sales], profiles: [employee-dual]}\n", "  - {departments: ['*'], profiles: [mailbox-dual]}\n", "  - {departments: [IT], profiles: [mailbox-dual]}\n"
	const order = "rules stand in another order"
	for _, c := range []struct {
		before, after *Policy
		want          bool
	}{
		{file(sales, all), file(all, sales), true}, {file(sales, all), file(other, all, sales), true},
		{file(sales, all), file(sales, other, all), false}, {file(sales, other, all), file(sales, all), false}, {file(sales, all, sales), file(sales, all), false},
	} {
		got := strings.Join(c.before.Changes(c.after), "; ")
		if strings.Contains(got, order) != c.want {
			t.Errorf("changes %q, want the order in it: %v", got, c.want)
		}
	}
}

// TestEffectsOfProfiles: who is touched by what changes about a profile.
func TestEffectsOfProfiles(t *testing.T) {
	before, err := parse(goodRules, goodPeople)
	if err != nil {
		t.Fatal(err)
	}
	after, err := parse(strings.Replace(goodRules, `min_protection: hardware, generation: "2"`, `min_protection: software, generation: "3"`, 1), goodPeople)
	if err != nil {
		t.Fatal(err)
	}
	effects := before.Effects(after)
	if len(effects) != 2 || effects[0].Detail != "replaced: another generation of the profile; profile: min_protection hardware -> software" {
		t.Errorf("effects %+v", effects)
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
