// Package policy decides who gets which certificate: one YAML file of rules by
// department, and one CSV file of people. Both are read strictly, and what is
// wrong is said with file and line, in a sentence, with what to do.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Problem is one thing wrong in a file.
type Problem struct {
	File string
	Line int
	// What is a sentence; Cure says what to do about it.
	What string
	Cure string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s:%d: %s %s", p.File, p.Line, p.What, p.Cure)
}

// Error is all that is wrong in the files; nothing of them is used.
type Error struct {
	Problems []Problem
}

func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Approval says who releases a request.
type Approval string

// The approvals.
const (
	Auto          Approval = "auto"
	Administrator Approval = "administrator"
)

// The consents, rotations and protections that a rule may name.
const (
	ConsentAsk    = "ask"
	ConsentNotify = "notify"
	ConsentSilent = "silent"

	RotationNewKey  = "new-key"
	RotationSameKey = "same-key"

	MailUser   = "user-decides"
	MailAlways = "always"
	MailNever  = "never"
)

// Organization is the company as certificates name it.
type Organization struct {
	Name       string
	Country    string
	Identifier string
}

// Module is a PKCS #11 module.
type Module struct {
	Path       string
	TokenLabel string
}

// Rule gives the people of some departments some certificates.
type Rule struct {
	// Departments are compared without regard to case; "*" is everybody.
	Departments      []string
	Profiles         []string
	Consent          string
	MaxPostponements uint32
	Stores           []string
	RenewBefore      time.Duration
	// RenewSpread is over how long before that moment renewals are suggested to
	// begin, so that what was issued together is not renewed together; 0 leaves it
	// to the agents.
	RenewSpread time.Duration
	// Rotation is empty where the rule leaves it to the key store of the machine:
	// the same key where new ones are costly, as on macOS, else a new one.
	Rotation string
	Modules  []Module
	Note     map[string]string
	Approval Approval
	// Mail is what the mail programs are to do.
	Mail Mail
	// MailboxCheck has each mailbox confirmed by a code that is mailed to it.
	MailboxCheck bool
}

// Mail is what the mail programs of a department are to do.
type Mail struct {
	// Programs are those that agents make ready; "*" is all, none leaves them alone.
	Programs []string
	// Sign, Encrypt and ClearSign are [MailAlways], [MailNever] or [MailUser].
	Sign, Encrypt, ClearSign string
	// Hash and Cipher are empty where the program decides.
	Hash, Cipher string
}

// ProfileChoice narrows a profile down.
type ProfileChoice struct {
	// Keys are the accepted kinds, best first; empty leaves it to the profile.
	Keys []string
	// MinProtection is the weakest store that will do; empty is any.
	MinProtection string
	// Generation is any word; another one has all certificates of the profile replaced.
	Generation string
	// CA names the authority that issues; empty is the server's own.
	CA string
}

// Person is one line of the people file.
type Person struct {
	Account     string
	Mailboxes   []string
	GivenName   string
	Surname     string
	DisplayName string
	Department  string
}

// CommonName is the personal name as the certificate has it.
func (p Person) CommonName() string {
	if p.DisplayName != "" {
		return p.DisplayName
	}
	return strings.TrimSpace(p.GivenName + " " + p.Surname)
}

// Policy is both files, checked.
type Policy struct {
	Organization   Organization
	Contact        string
	InstallAnchors bool
	Profiles       map[string]ProfileChoice
	Rules          []Rule
	People         []Person

	byAccount map[string][]int
	byMailbox map[string][]int
}

// Grant is one credential that one person is to have.
type Grant struct {
	Person  Person
	Profile string
	Rule    Rule
}

// RuleFor gives the first rule that names the department.
func (p *Policy) RuleFor(department string) (Rule, bool) {
	for _, rule := range p.Rules {
		for _, d := range rule.Departments {
			if d == "*" || strings.EqualFold(d, department) {
				return rule, true
			}
		}
	}
	return Rule{}, false
}

// Grants gives what the person behind an account is to have: account is "alice"
// or "CORP\alice", upn "alice@corp.example" or empty. An account in the people
// file that is bare matches in every domain, one with a domain only there.
func (p *Policy) Grants(account, upn string) []Grant {
	var grants []Grant
	for _, i := range p.match(account, upn) {
		person := p.People[i]
		rule, ok := p.RuleFor(person.Department)
		if !ok {
			continue
		}
		for _, profile := range rule.Profiles {
			grants = append(grants, Grant{Person: person, Profile: profile, Rule: rule})
		}
	}
	return grants
}

func (p *Policy) match(account, upn string) []int {
	var found []int
	for _, name := range AccountNames(account, upn) {
		for _, i := range p.byAccount[name] {
			if name != "" && !slices.Contains(found, i) {
				found = append(found, i)
			}
		}
	}
	return found
}

func fold(account string) string { return strings.ToLower(strings.TrimSpace(account)) }

// index makes lookups by account and mailbox fast.
func (p *Policy) index() {
	p.byAccount = make(map[string][]int, len(p.People))
	p.byMailbox = make(map[string][]int, len(p.People))
	for i, person := range p.People {
		key := fold(person.Account)
		p.byAccount[key] = append(p.byAccount[key], i)
		for _, mailbox := range person.Mailboxes {
			mailbox = strings.ToLower(mailbox)
			p.byMailbox[mailbox] = append(p.byMailbox[mailbox], i)
		}
	}
}

// AccountNames gives the forms under which a user may stand in the people file:
// as reported, without the domain, and the user principal name; in lower case.
func AccountNames(account, upn string) []string {
	account, upn = fold(account), fold(upn)
	names := []string{account}
	if _, bare, ok := strings.Cut(account, `\`); ok {
		names = append(names, bare)
	}
	if upn != "" {
		names = append(names, upn)
	}
	return names
}

// SameAccount says whether an account of the people file is that of a user.
func SameAccount(file, account, upn string) bool {
	file = fold(file)
	return file != "" && slices.Contains(AccountNames(account, upn), file)
}
