package status

import (
	"io"
	"strings"

	"smime-agent/agent/text"
)

// Check is one of the doctor's checks. Name is a stable word; Detail says what
// was found, Cure what to do if it is not OK. Texts are in English.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Cure   string `json:"cure,omitempty"`
}

// Checks is what the doctor found.
type Checks struct {
	Checks []Check `json:"checks"`
}

// Failed counts the checks that are not OK.
func (c Checks) Failed() int {
	n := 0
	for _, check := range c.Checks {
		if !check.OK {
			n++
		}
	}
	return n
}

// Text writes the checks for people.
func (c Checks) Text(w io.Writer, o Options) error {
	p := &page{w: w, t: text.For(o.Locale), o: o}
	for _, check := range c.Checks {
		mark := OK
		if !check.OK {
			mark = Error
		}
		p.line(p.severity(mark) + "  " + strings.Join([]string{Printable(check.Name), p.wrap(Printable(check.Detail), 6)}, ": "))
		if !check.OK && check.Cure != "" {
			p.line(p.wrap("  -> "+Printable(check.Cure), 5))
		}
	}
	p.line("")
	if n := c.Failed(); n > 0 {
		p.line(p.t.Count("status.doctorbad", n))
	} else {
		p.line(p.t.Say("status.doctorwell", nil))
	}
	return p.fail
}

// Setting is one setting in force.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
	// Secret settings never show their value, Private ones only to
	// administrators; see [Setting.Masked].
	Secret  bool `json:"secret,omitempty"`
	Private bool `json:"private,omitempty"`
	// Problem is one sentence if what was set cannot be used.
	Problem string `json:"problem,omitempty"`
}

// mask stands for a value that is not for the reader's eyes.
const mask = "********"

// Masked takes away what the reader must not see: from everybody the value of a
// secret, and from who is no administrator that of a private setting, with
// whatever is said of it.
func (s Setting) Masked(admin bool) Setting {
	if (s.Secret || s.Private && !admin) && s.Value != "" {
		s.Value = mask
	}
	if s.Private && !admin {
		s.Source, s.Problem = "", ""
	}
	return s
}

// Settings is what is in force and where it comes from.
type Settings struct {
	Settings []Setting `json:"settings"`
}

// Text writes the settings for people.
func (s Settings) Text(w io.Writer, o Options) error {
	p := &page{w: w, t: text.For(o.Locale), o: o}
	rows := make([][]string, 0, len(s.Settings))
	for _, setting := range s.Settings {
		setting = setting.Masked(true) // the service has masked what is private
		row := []string{Printable(setting.Name), Printable(setting.Value), Printable(setting.Source)}
		if setting.Problem != "" {
			row = append(row, p.severity(Warning)+" "+Printable(setting.Problem))
		}
		rows = append(rows, row)
	}
	p.table([]string{p.t.Say("column.setting", nil), p.t.Say("column.value", nil), p.t.Say("column.source", nil)}, rows)
	return p.fail
}
