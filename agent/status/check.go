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
		p.line(p.severity(mark) + "  " + strings.Join([]string{clean(check.Name), p.wrap(clean(check.Detail), 6)}, ": "))
		if !check.OK && check.Cure != "" {
			p.line(p.wrap("  -> "+clean(check.Cure), 5))
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
	// Secret settings never show their value; see [Setting.Masked].
	Secret bool `json:"secret,omitempty"`
	// Problem is one sentence if what was set cannot be used.
	Problem string `json:"problem,omitempty"`
}

// mask stands for the value of a secret.
const mask = "********"

// Masked takes the value of a secret away.
func (s Setting) Masked() Setting {
	if s.Secret && s.Value != "" {
		s.Value = mask
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
		setting = setting.Masked()
		row := []string{clean(setting.Name), clean(setting.Value), clean(setting.Source)}
		if setting.Problem != "" {
			row = append(row, p.severity(Warning)+" "+clean(setting.Problem))
		}
		rows = append(rows, row)
	}
	p.table([]string{p.t.Say("column.setting", nil), p.t.Say("column.value", nil), p.t.Say("column.source", nil)}, rows)
	return p.fail
}
