package policy

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// byteOrderMark is what Windows puts before UTF-8.
const byteOrderMark = "\xef\xbb\xbf"

// columns of the people file; those marked true must be there.
func columns() map[string]bool {
	return map[string]bool{
		"account": true, "mailbox": true, "department": true,
		"given_name": false, "surname": false, "display_name": false,
	}
}

// columnWords lists the columns for messages.
const columnWords = "account, mailbox, given_name, surname, display_name, department"

// maxMailboxes is what one certificate may name.
const maxMailboxes = 16

// maxProblems ends the reading of a file that is wrong all over.
const maxProblems = 50

// people reads the CSV: UTF-8, with or without a byte order mark, comma or
// semicolon, a heading line with the columns in any order. Several mailboxes
// stand in one field, with spaces between them.
func (r *reader) people(source Source, p *Policy) {
	r.file = source.Name
	data := bytes.TrimPrefix(source.Data, []byte(byteOrderMark))
	if len(data) > MaxFile || !utf8.Valid(data) {
		r.problem(1, `Save it as "CSV UTF-8".`, "The file is too large or not UTF-8.")
		return
	}
	lines := csv.NewReader(bytes.NewReader(data))
	lines.TrimLeadingSpace = true
	lines.ReuseRecord = true
	heading, _, _ := bytes.Cut(data, []byte("\n"))
	if bytes.Count(heading, []byte(";")) > bytes.Count(heading, []byte(",")) {
		lines.Comma = ';' // what a spreadsheet writes in half of Europe
	}
	head, ok := r.heading(lines)
	if !ok {
		return
	}
	seen, nobody := map[string]int{}, map[string]bool{}
	for len(r.problems) < maxProblems {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			if len(p.People) == 0 {
				r.warn(1, "Look whether the export of the people went well.", "The file names nobody, so nobody is to have a certificate.")
			}
			return
		}
		if err != nil {
			r.csvProblem(err)
			return
		}
		line, _ := lines.FieldPos(0)
		r.person(line, head, fields, p, seen)
		r.ruled(line, p, nobody)
	}
}

// maxUnruled is of how many departments without a rule it is said.
const maxUnruled = 10

// ruled warns of the last person's department where no rule names it, once for each.
func (r *reader) ruled(line int, p *Policy, said map[string]bool) {
	department := p.People[len(p.People)-1].Department
	if _, ok := p.RuleFor(department); ok || said[strings.ToLower(department)] || len(said) == maxUnruled {
		return
	}
	said[strings.ToLower(department)] = true
	r.warn(line, "Name it in a rule, or add one for everybody else: \"departments: ['*']\".", "No rule names the department %q, so that its people get no certificate.", department)
}

func (r *reader) csvProblem(err error) {
	line := 1
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		line = parse.Line
		err = parse.Err
	}
	r.problem(line, "Every line needs as many fields as the heading, and quotes in pairs.", "The line cannot be read: %v.", err)
}

func (r *reader) heading(lines *csv.Reader) ([]string, bool) {
	fields, err := lines.Read()
	if err != nil {
		r.problem(1, "The first line must name the columns: "+columnWords+".", "The file has no heading.")
		return nil, false
	}
	head := make([]string, 0, len(fields))
	known := columns()
	good := true
	for _, field := range fields {
		name := strings.ToLower(strings.TrimSpace(field))
		_, ok := known[name]
		if !ok || slices.Contains(head, name) {
			r.problem(1, "Use these columns, each once: "+columnWords+".", "The column %q is not known, or there twice.", field)
			good = false
		}
		head = append(head, name)
	}
	for _, name := range []string{"account", "mailbox", "department"} {
		if !slices.Contains(head, name) {
			r.problem(1, "Add it to the heading.", "The column %q is missing.", name)
			good = false
		}
	}
	return head, good
}

func (r *reader) person(line int, head, fields []string, p *Policy, seen map[string]int) {
	person := r.fill(line, head, fields)
	if person.Account == "" || len(person.Account) > 256 {
		r.problem(line, `Write "alice", "CORP\alice" or "alice@corp.example".`, "The account is missing or too long.")
	}
	if person.Department == "" {
		r.problem(line, "Name the department; rules go by it.", "The department is missing.")
	}
	r.mailboxes(line, person.Mailboxes)
	if len(person.Mailboxes) > 0 {
		key := fold(person.Account) + "\x00" + strings.ToLower(person.Mailboxes[0])
		if before := seen[key]; before != 0 {
			r.problem(line, "Remove one of the two.", "Account %q with mailbox %q stands on line %d already.", person.Account, person.Mailboxes[0], before)
		}
		seen[key] = line
	}
	if rule, ok := p.RuleFor(person.Department); ok {
		r.names(line, person, rule)
	}
	p.People = append(p.People, person)
}

func (r *reader) fill(line int, head, fields []string) Person {
	var person Person
	targets := map[string]*string{
		"account": &person.Account, "given_name": &person.GivenName, "surname": &person.Surname,
		"display_name": &person.DisplayName, "department": &person.Department,
	}
	for i, name := range head {
		value := strings.TrimSpace(fields[i])
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			r.problem(line, "Remove it.", "The column %q has a control character.", name)
		} else if strings.ContainsFunc(value, unseen) {
			r.later(line, "Remove it, or write the text anew.", "The column %q has a character that cannot be seen or could not be read: %+q.", name, value)
		}
		if name == "mailbox" {
			person.Mailboxes = strings.FieldsFunc(value, func(c rune) bool { return c == ' ' || c == ';' || c == ',' })
		} else {
			*targets[name] = strings.Clone(value)
		}
	}
	return person
}

func (r *reader) mailboxes(line int, mailboxes []string) {
	if len(mailboxes) == 0 || len(mailboxes) > maxMailboxes {
		r.problem(line, "Write one address, or several with spaces between them.", "There are %d mailboxes.", len(mailboxes))
	}
	for i, mailbox := range mailboxes {
		if !validMailbox(mailbox) {
			r.problem(line, "Write it as name@domain in ASCII.", "%q is no mail address.", mailbox)
		} else if !deliverable(mailbox) {
			r.later(line, "Write it as mail servers know it.", "%q is no mail address: no mail can be sent there.", mailbox)
		}
		if slices.ContainsFunc(mailboxes[:i], func(m string) bool { return strings.EqualFold(m, mailbox) }) {
			r.problem(line, "Remove one.", "The mailbox %q is there twice.", mailbox)
		}
	}
}

// unseen finds what must not get into a certificate, and what keeps an account from
// ever being found: control characters, those that have no width or turn the
// direction round, and the sign for what could not be converted. Joiners stay, which
// some scripts need.
func unseen(c rune) bool {
	const zeroWidthNonJoiner, zeroWidthJoiner = 0x200c, 0x200d
	return unicode.IsControl(c) || c == unicode.ReplacementChar ||
		unicode.Is(unicode.Cf, c) && c != zeroWidthNonJoiner && c != zeroWidthJoiner
}

// host is a domain name as mail is sent to it (RFC 5321, 4.1.2), with two labels at least.
var host = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// maxLocal bounds what stands before the @ (RFC 5321, 4.5.3.1.1).
const maxLocal = 64

// validMailbox takes plain ASCII addresses, as rfc822Name can hold (RFC 5280, 4.2.1.6).
func validMailbox(mailbox string) bool {
	for i := range len(mailbox) {
		if mailbox[i] <= ' ' || mailbox[i] > '~' {
			return false
		}
	}
	address, err := mail.ParseAddress(mailbox)
	_, domain, _ := strings.Cut(mailbox, "@")
	return err == nil && address.Address == mailbox && address.Name == "" && len(mailbox) <= 254 &&
		!strings.ContainsAny(mailbox, `"[]`) && strings.Contains(domain, ".") &&
		!strings.HasPrefix(domain, ".") && !strings.HasSuffix(domain, ".")
}

// deliverable says that a mailbox has a domain name, and no longer name before it than mail servers take.
func deliverable(mailbox string) bool {
	local, domain, _ := strings.Cut(mailbox, "@")
	return len(local) <= maxLocal && host.MatchString(domain)
}

// names demands those that an employee's certificate must have (BR 7.1.4.2.5).
func (r *reader) names(line int, person Person, rule Rule) {
	if !slices.ContainsFunc(rule.Profiles, func(name string) bool { return strings.HasPrefix(name, "employee-") }) {
		return
	}
	if person.GivenName == "" || person.Surname == "" {
		r.problem(line, "Fill in given_name and surname, or give the department another profile.", "An employee's certificate needs both names.")
	}
	if n := utf8.RuneCountInString(person.CommonName()); n > 64 {
		r.problem(line, "Shorten it.", "The display name has %d characters, more than 64.", n)
	}
}
