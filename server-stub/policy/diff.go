package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Changes says in words how next differs from p; p may be nil.
func (p *Policy) Changes(next *Policy) []string {
	if p == nil {
		return []string{fmt.Sprintf("first policy: %d people, %d rules", len(next.People), len(next.Rules))}
	}
	out := peopleChanges(keyed(p.People), keyed(next.People))
	out = append(out, ruleChanges(p.Rules, next.Rules)...)
	for _, name := range slices.Sorted(maps.Keys(union(p.Profiles, next.Profiles))) {
		out = append(out, compare("profile "+name, choiceFacts(p.Profiles[name]), choiceFacts(next.Profiles[name]))...)
	}
	return append(out, compare("settings", p.facts(), next.facts())...)
}

// fact is a named property in words, for comparison.
type fact struct{ name, value string }

func (p *Policy) facts() []fact {
	return []fact{
		{"organization", p.Organization.Name}, {"country", p.Organization.Country}, {"identifier", p.Organization.Identifier},
		{"contact", p.Contact}, {"install_anchors", fmt.Sprint(p.InstallAnchors)},
		{"partners", fmt.Sprintf("%d certificates, %.12s", len(p.Partners.Certificates), p.Partners.Digest)},
	}
}

func choiceFacts(c ProfileChoice) []fact {
	return []fact{
		{"keys", strings.Join(c.Keys, ", ")}, {"min_protection", c.MinProtection}, {"generation", c.Generation}, {"ca", c.CA},
	}
}

func personFacts(p Person) []fact {
	return []fact{
		{"mailboxes", strings.Join(p.Mailboxes, " ")}, {"given_name", p.GivenName}, {"surname", p.Surname},
		{"display_name", p.DisplayName}, {"department", p.Department},
	}
}

func ruleFacts(r Rule) []fact {
	return append(r.Mail.facts(), []fact{
		{"profiles", strings.Join(r.Profiles, ", ")}, {"consent", r.Consent}, {"max_postponements", fmt.Sprint(r.MaxPostponements)},
		{"stores", strings.Join(r.Stores, ", ")}, {"renewal.before", r.RenewBefore.String()}, {"renewal.rotation", r.Rotation},
		{"renewal.spread", r.RenewSpread.String()}, {"approval", string(r.Approval)}, {"mailbox_check", fmt.Sprint(r.MailboxCheck)},
		{"modules", fmt.Sprint(r.Modules)}, {"note", fmt.Sprint(r.Note)},
	}...)
}

// compare gives a line for each property that differs; both lists have the same names.
func compare(what string, before, after []fact) []string {
	var out []string
	for i, b := range before {
		if a := after[i]; a.value != b.value {
			out = append(out, fmt.Sprintf("%s: %s %s -> %s", what, b.name, orNone(b.value), orNone(a.value)))
		}
	}
	return out
}

func orNone(value string) string { return cmp.Or(value, "(none)") }

func union[V any](a, b map[string]V) map[string]bool {
	out := make(map[string]bool, len(a)+len(b))
	for key := range a {
		out[key] = true
	}
	for key := range b {
		out[key] = true
	}
	return out
}

func peopleChanges(before, after map[string]Person) []string {
	var out, removed []string
	for _, key := range slices.Sorted(maps.Keys(union(before, after))) {
		old, had := before[key]
		now, has := after[key]
		switch {
		case !had:
			out = append(out, "person added: "+key)
		case !has:
			removed = append(removed, "person removed: "+key)
		default:
			out = append(out, compare("person changed: "+key, personFacts(old), personFacts(now))...)
		}
	}
	return append(out, removed...)
}

// ruleChanges compares rules by the departments that they name.
func ruleChanges(before, after []Rule) []string {
	old, now := rulesByName(before), rulesByName(after)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(union(old, now))) {
		was, had := old[name]
		is, has := now[name]
		switch {
		case !had:
			out = append(out, "rule added: "+name)
		case !has:
			out = append(out, "rule removed: "+name)
		default:
			out = append(out, compare("rule changed: "+name, ruleFacts(was), ruleFacts(is))...)
		}
	}
	if !slices.Equal(order(before, now), order(after, old)) {
		out = append(out, "rules stand in another order: the first that names a department holds")
	}
	return out
}

// order gives the names of those rules that are in both files, as they stand in one of them.
func order(rules []Rule, both map[string]Rule) []string {
	var out []string
	for _, r := range rules {
		if _, ok := both[ruleName(r)]; ok && !slices.Contains(out, ruleName(r)) {
			out = append(out, ruleName(r))
		}
	}
	return out
}

func ruleName(r Rule) string { return strings.Join(r.Departments, ", ") }

func rulesByName(rules []Rule) map[string]Rule {
	out := make(map[string]Rule, len(rules))
	for _, r := range rules {
		if _, shadowed := out[ruleName(r)]; !shadowed {
			out[ruleName(r)] = r
		}
	}
	return out
}

func keyed(people []Person) map[string]Person {
	out := make(map[string]Person, len(people))
	for _, person := range people {
		out[person.Account+" "+person.Mailboxes[0]] = person
	}
	return out
}

// The kinds of [Effect].
const (
	Gains   = "gains"
	Loses   = "loses"
	Differs = "changes"
)

// Effect is what a new policy means for one certificate of one person.
type Effect struct {
	Kind      string
	Account   string
	Mailboxes []string
	Profile   string
	// Detail says what [Differs].
	Detail string
}

// Effects says who gains or loses which certificate by next, and for whom what
// about it changes. p may be nil. Whoever loses one keeps what was issued until
// it ends or is revoked.
func (p *Policy) Effects(next *Policy) []Effect {
	before, after := p.grantsByKey(), next.grantsByKey()
	var out []Effect
	for _, key := range slices.Sorted(maps.Keys(union(before, after))) {
		old, had := before[key]
		now, has := after[key]
		switch {
		case !had:
			out = append(out, effect(Gains, now, ""))
		case !has:
			out = append(out, effect(Loses, old, ""))
		default:
			lines := append(compare("rule", ruleFacts(old.Rule), ruleFacts(now.Rule)), compare("person", personFacts(old.Person), personFacts(now.Person))...)
			was, is := p.Profiles[now.Profile], next.Profiles[now.Profile]
			if was.Generation != is.Generation {
				lines = append(lines, "replaced: another generation of the profile")
			}
			was.Generation = is.Generation
			lines = append(lines, compare("profile", choiceFacts(was), choiceFacts(is))...)
			if len(lines) > 0 {
				out = append(out, effect(Differs, now, strings.Join(lines, "; ")))
			}
		}
	}
	return out
}

func effect(kind string, g Grant, detail string) Effect {
	return Effect{Kind: kind, Account: g.Person.Account, Mailboxes: g.Person.Mailboxes, Profile: g.Profile, Detail: detail}
}

func (p *Policy) grantsByKey() map[string]Grant {
	out := map[string]Grant{}
	if p == nil {
		return out
	}
	for _, g := range p.AllGrants() {
		out[strings.Join([]string{fold(g.Person.Account), strings.ToLower(strings.Join(g.Person.Mailboxes, " ")), g.Profile}, "\x00")] = g
	}
	return out
}

// AllGrants gives what everybody in the people file is to have.
func (p *Policy) AllGrants() []Grant {
	var out []Grant
	for _, person := range p.People {
		rule, ok := p.RuleFor(person.Department)
		if !ok {
			continue
		}
		for _, profile := range rule.Profiles {
			out = append(out, Grant{Person: person, Profile: profile, Rule: rule})
		}
	}
	return out
}

// Holders gives the accounts that have the mailbox, by any case; none if nobody has it.
func (p *Policy) Holders(mailbox string) []string {
	var out []string
	for _, i := range p.byMailbox[strings.ToLower(mailbox)] {
		out = append(out, p.People[i].Account)
	}
	return out
}
