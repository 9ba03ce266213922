package policy

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// MaxFile is the largest file that is read, in octets.
const MaxFile = 64 << 20

// maxYAML bounds the rules, which people write by hand.
const maxYAML = 256 << 10

// maxDepth bounds nesting: our files need 5 levels, and the YAML package takes
// quadratic time, and stack, for levels without end.
const maxDepth = 32

// The shapes of the YAML file. Every key must be known.
type fileYAML struct {
	Organization   organizationYAML       `yaml:"organization"`
	Contact        string                 `yaml:"contact"`
	Approval       string                 `yaml:"approval"`
	InstallAnchors bool                   `yaml:"install_anchors"`
	Profiles       map[string]profileYAML `yaml:"profiles"`
	Rules          []ruleYAML             `yaml:"rules"`
	Partners       []string               `yaml:"partners"`
}

type organizationYAML struct {
	Name       string `yaml:"name"`
	Country    string `yaml:"country"`
	Identifier string `yaml:"identifier"`
}

type ruleYAML struct {
	Departments      []string          `yaml:"departments"`
	Profiles         []string          `yaml:"profiles"`
	Consent          string            `yaml:"consent"`
	MaxPostponements string            `yaml:"max_postponements"` // the YAML package makes 2 of 2.5
	Stores           []string          `yaml:"stores"`
	Renewal          renewalYAML       `yaml:"renewal"`
	Modules          []moduleYAML      `yaml:"modules"`
	Note             map[string]string `yaml:"note"`
	Approval         string            `yaml:"approval"`
	MailboxCheck     string            `yaml:"mailbox_check"`
	Mail             mailYAML          `yaml:"mail"`
}

type mailYAML struct {
	Programs  *[]string `yaml:"programs"`
	Sign      string    `yaml:"sign"`
	Encrypt   string    `yaml:"encrypt"`
	ClearSign string    `yaml:"clear_sign"`
	Hash      string    `yaml:"hash"`
	Cipher    string    `yaml:"cipher"`
}

type profileYAML struct {
	Keys          []string `yaml:"keys"`
	MinProtection string   `yaml:"min_protection"`
	Generation    string   `yaml:"generation"`
	CA            string   `yaml:"ca"`
}

type renewalYAML struct {
	Before   string `yaml:"before"`
	Rotation string `yaml:"rotation"`
	Spread   string `yaml:"spread"`
}

type moduleYAML struct {
	Path       string `yaml:"path"`
	TokenLabel string `yaml:"token_label"`
}

// Catalog is what the words of a rule may be: the profiles and kinds of key of the CA.
type Catalog struct {
	Profiles []string
	Keys     []string
	// CAs are the names of other authorities than the server's own.
	CAs []string
	// Partners are the files that the rules name; Now judges their times.
	Partners []PartnerFile
	Now      time.Time
	// Applied says that the files were taken before, maybe by an earlier version: what
	// that one took is no reason to go without a policy, and only warned of.
	Applied bool
}

// Source is a file's name and content.
type Source struct {
	Name string
	Data []byte
}

// Parse reads rules and people. All problems of both files are given together,
// as an [*Error].
func Parse(rules, people Source, catalog Catalog) (*Policy, error) {
	r := &reader{catalog: catalog}
	p := &Policy{}
	r.rules(rules, p)
	r.people(people, p)
	if len(r.problems) > 0 {
		return nil, &Error{Problems: r.problems}
	}
	p.Warnings = append(p.Warnings, r.warnings...)
	p.index()
	return p, nil
}

type reader struct {
	catalog  Catalog
	problems []Problem
	warnings []Problem
	file     string
	tree     *ast.File
}

func (r *reader) problem(line int, cure, what string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: line, What: fmt.Sprintf(what, args...), Cure: cure})
}

// later is problem for what earlier versions took; false where the files were
// applied before, and it is only a warning.
func (r *reader) later(line int, cure, what string, args ...any) bool {
	if r.catalog.Applied {
		r.warn(line, cure, what, args...)
	} else {
		r.problem(line, cure, what, args...)
	}
	return !r.catalog.Applied
}

// warn says what an administrator should know of a file that is good.
func (r *reader) warn(line int, cure, what string, args ...any) {
	r.warnings = append(r.warnings, Problem{File: r.file, Line: line, What: fmt.Sprintf(what, args...), Cure: cure})
}

// at gives the line of a path such as $.rules[0].consent, or of its nearest parent that is there.
func (r *reader) at(path string) int {
	for path != "" && path != "$" {
		if p, err := yaml.PathString(path); err == nil {
			if node, err := p.FilterFile(r.tree); err == nil && node != nil && node.GetToken() != nil {
				return node.GetToken().Position.Line
			}
		}
		path = path[:max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['), 0)]
	}
	return 1
}

func (r *reader) rules(source Source, p *Policy) {
	r.file = source.Name
	file, ok := r.parse(bytes.TrimPrefix(source.Data, []byte(byteOrderMark)))
	if !ok {
		return
	}
	p.Contact, p.InstallAnchors = strings.TrimSpace(file.Contact), file.InstallAnchors
	p.Organization = r.organization(file.Organization)
	r.partners(file.Partners, p)
	p.Profiles = r.profiles(file.Profiles)
	standard := r.approval("$.approval", file.Approval, Auto)
	if len(file.Rules) == 0 {
		r.problem(r.at("$.rules"), `Add a rule, at least "- departments: ['*']" with a profile.`, "There are no rules, so nobody would get a certificate.")
	}
	for i, rule := range file.Rules {
		p.Rules = append(p.Rules, r.rule(fmt.Sprintf("$.rules[%d]", i), rule, standard))
	}
}

// parse reads the YAML, if it is one that cannot mean anything else than it says.
func (r *reader) parse(data []byte) (file fileYAML, ok bool) {
	if len(data) > maxYAML || !utf8.Valid(data) {
		r.problem(1, "Save it as UTF-8 text of at most 256 KiB.", "The file is too large or not UTF-8.")
		return file, false
	}
	control := func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t' }
	if at := bytes.IndexFunc(data, control); at >= 0 && r.later(1+bytes.Count(data[:at], []byte("\n")), "Remove it.", "The line has a control character.") {
		return file, false
	}
	if line := tooDeep(data); line > 0 {
		r.problem(line, "Close each bracket, and nest no lists in lists.", "The file is nested too deeply.")
		return file, false
	}
	var err error
	if r.tree, err = parser.ParseBytes(data, 0); err != nil {
		r.syntax(err)
		return file, false
	}
	if aliased(r.tree) {
		r.problem(1, "Write each rule out.", "The file uses anchors, aliases or tags.")
		return file, false
	}
	if line := second(r.tree); line > 0 &&
		r.later(line, `Take the line "---" out, and write everything under the keys above it.`, "A second document begins in the file, which would not be read.") {
		return file, false
	}
	if err := yaml.UnmarshalWithOptions(data, &file, yaml.Strict()); err != nil {
		r.syntax(err)
		return file, false
	}
	return file, true
}

// tooDeep gives the line where brackets are open, or dashes stand in a row, by
// the dozen; 0 if there is none. Comments do not count; it does not know of
// quotes, so it is a little too strict with odd text.
func tooDeep(data []byte) int {
	line, open, dashes, comment := 1, 0, 0, false
	for i, c := range data {
		if comment && c != '\n' {
			continue
		}
		switch c {
		case '\n':
			line, dashes, comment = line+1, 0, false
		case '#':
			comment = i == 0 || data[i-1] == ' ' || data[i-1] == '\n'
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		case '-', '?':
			dashes++
		case ' ':
		default:
			dashes = 0
		}
		if open > maxDepth || dashes > maxDepth {
			return line
		}
	}
	return 0
}

// aliased finds what could make a small file large, or mean something else than it says.
func aliased(tree *ast.File) bool {
	finder := &aliasFinder{}
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			ast.Walk(finder, doc.Body)
		}
	}
	return finder.found
}

type aliasFinder struct{ found bool }

func (f *aliasFinder) Visit(node ast.Node) ast.Visitor {
	switch node.Type() {
	case ast.AnchorType, ast.AliasType, ast.TagType, ast.MergeKeyType:
		f.found = true
		return nil
	default:
		return f
	}
}

// syntax turns the YAML package's error into a problem; its message begins with "[line:column] ".
func (r *reader) syntax(err error) {
	text := yaml.FormatError(err, false, false)
	line := 1
	if m := regexp.MustCompile(`^\[(\d+):\d+\] *`).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	text, _, _ = strings.Cut(text, "\n")
	r.problem(max(line, 1), "Compare with the example in docs/central-management.md.", "This cannot be read: %s.", strings.TrimSuffix(text, "."))
}

var (
	countryForm    = regexp.MustCompile(`^[A-Z]{2}$`)
	identifierForm = regexp.MustCompile(`^((NTR|VAT|PSD|LEI)[A-Z]{2}(\+[A-Z0-9]{1,3})?-[!-~]+|GOV[A-Z]{2}(\+[A-Z0-9]{1,3})?|INTXG)$`)
)

func (r *reader) organization(o organizationYAML) Organization {
	out := Organization{Name: strings.TrimSpace(o.Name), Country: o.Country, Identifier: o.Identifier}
	if out.Name == "" || utf8.RuneCountInString(out.Name) > 64 {
		r.problem(r.at("$.organization.name"), "Write the full legal name, at most 64 characters.", "The organization's name is missing or too long.")
	}
	if strings.ContainsFunc(out.Name, unseen) {
		r.later(r.at("$.organization.name"), "Write the name anew.", "The organization's name has a character that cannot be seen or could not be read: %+q.", out.Name)
	}
	if !countryForm.MatchString(out.Country) {
		r.problem(r.at("$.organization.country"), `Write the two capital letters of ISO 3166, for example "DE".`, "The country %q is none.", out.Country)
	}
	if !identifierForm.MatchString(out.Identifier) {
		r.problem(r.at("$.organization.identifier"),
			`Write scheme, country and number, for example "NTRDE-DER3306.HRB12345" (S/MIME BR, appendix A.1).`,
			"The organization identifier %q has no form that certificates may have.", out.Identifier)
	}
	return out
}

func (r *reader) approval(path, word string, standard Approval) Approval {
	switch Approval(word) {
	case "":
		return standard
	case Auto, Administrator:
		return Approval(word)
	}
	r.problem(r.at(path), `Write "auto" or "administrator".`, "The approval %q is not known.", word)
	return standard
}

func (r *reader) profiles(y map[string]profileYAML) map[string]ProfileChoice {
	out := make(map[string]ProfileChoice, len(y))
	for _, name := range slices.Sorted(maps.Keys(y)) {
		path := "$.profiles." + name
		r.word(path, name, r.catalog.Profiles...)
		r.words(path+".keys", y[name].Keys, r.catalog.Keys)
		if y[name].MinProtection != "" {
			r.word(path+".min_protection", y[name].MinProtection, "software", "non-exportable", "hardware")
		}
		if y[name].CA != "" && !slices.Contains(r.catalog.CAs, y[name].CA) {
			r.problem(r.at(path+".ca"), "Set it up in server.yaml and start the server again, or leave it out for the server's own CA.", "The CA %q is not set up.", y[name].CA)
		}
		out[name] = ProfileChoice(y[name])
	}
	return out
}

func (r *reader) rule(path string, y ruleYAML, standard Approval) Rule {
	rule := Rule{
		Departments: r.departments(path+".departments", y.Departments), Profiles: y.Profiles, MaxPostponements: r.postponements(path+".max_postponements", y.MaxPostponements),
		Stores: y.Stores, Note: y.Note,
		Approval: r.approval(path+".approval", y.Approval, standard),
		Consent:  r.word(path+".consent", y.Consent, ConsentAsk, ConsentNotify, ConsentSilent),
	}
	if y.Renewal.Rotation != "" {
		rule.Rotation = r.word(path+".renewal.rotation", y.Renewal.Rotation, RotationNewKey, RotationSameKey)
	}
	rule.MailboxCheck = r.word(path+".mailbox_check", y.MailboxCheck, checkNone, checkMail) == checkMail
	rule.Mail = r.mail(path+".mail", y.Mail)
	if len(y.Departments) == 0 {
		r.problem(r.at(path), `Add "departments: ['*']" for everybody.`, "The rule is for no department.")
	}
	if len(y.Profiles) == 0 {
		r.problem(r.at(path), fmt.Sprintf(`Add "profiles:" with one of %s.`, strings.Join(r.catalog.Profiles, ", ")), "The rule gives no profile.")
	}
	r.words(path+".profiles", y.Profiles, r.catalog.Profiles)
	rule.RenewBefore = r.days(path+".renewal.before", y.Renewal.Before)
	rule.RenewSpread = r.days(path+".renewal.spread", y.Renewal.Spread)
	if rule.RenewBefore+rule.RenewSpread > maxRenewBefore {
		r.problem(r.at(path+".renewal"), "Make them shorter.", "Before and spread together are more than 300 days.")
	}
	r.bounds(path, y)
	for i, m := range y.Modules {
		if m.Path == "" {
			r.problem(r.at(fmt.Sprintf("%s.modules[%d]", path, i)), "Write the absolute path of the PKCS #11 module.", "The module has no path.")
		}
		rule.Modules = append(rule.Modules, Module(m))
	}
	return rule
}

// word checks one word against those allowed; the first is for an empty one.
func (r *reader) word(path, word string, allowed ...string) string {
	if word == "" {
		return allowed[0]
	}
	if !slices.Contains(allowed, word) {
		r.problem(r.at(path), "Write one of: "+strings.TrimPrefix(strings.Join(allowed, ", "), ", ")+".", "The word %q is not known here.", word)
	}
	return word
}

func (r *reader) words(path string, words, allowed []string) {
	for i, word := range words {
		line := func() int { return r.at(fmt.Sprintf("%s[%d]", path, i)) }
		if !slices.Contains(allowed, word) {
			r.problem(line(), "Write one of: "+strings.Join(allowed, ", ")+".", "The word %q is not known here.", word)
		} else if slices.Contains(words[:i], word) {
			r.problem(line(), "Remove one.", "The word %q is there twice.", word)
		}
	}
}

// What mailbox_check may say.
const (
	checkNone = "none"
	checkMail = "mail"
)

// maxRenewBefore is a bit less than the life of a certificate.
const maxRenewBefore = 300 * 24 * time.Hour

// days reads "60d" or what [time.ParseDuration] does; empty is 0.
func (r *reader) days(path, text string) time.Duration {
	d, err := ParseDuration(text)
	if err != nil || d < 0 || d > maxRenewBefore {
		r.problem(r.at(path), `Write days such as "60d", at most 300.`, "The time %q is none.", text)
		return 0
	}
	return d
}

// ParseDuration reads "60d", "36h" and the like; empty is 0.
func ParseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if number, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}
