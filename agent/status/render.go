package status

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/text"
)

// Options says how to write for people.
type Options struct {
	// Locale is a BCP 47 tag or a POSIX locale.
	Locale string
	// Color uses ANSI colors: for terminals only.
	Color bool
	// Width is the terminal's in columns; 0 does not wrap.
	Width int
}

// page collects what is written; the first error of the writer stays.
type page struct {
	w    io.Writer
	t    *text.Text
	o    Options
	fail error
}

func (p *page) line(s string) {
	if p.fail == nil {
		_, p.fail = fmt.Fprintln(p.w, strings.TrimRight(s, " "))
	}
}

// Text writes the report for people.
func Text(w io.Writer, r Report, o Options) error {
	p := &page{w: w, t: text.For(o.Locale), o: o}
	p.heading(r)
	p.line("")
	p.credentials(r)
	p.programs(r)
	p.conditions(r)
	return p.fail
}

func (p *page) heading(r Report) {
	p.line(p.paint(bold, p.t.Say("status.heading", map[string]any{"Version": Printable(r.Version)})) + "  " + p.severity(r.Severity))
	identity := p.t.Say("status.notjoined", nil)
	if r.Device.Joined {
		identity = p.t.Say("status.until", map[string]any{"Date": p.date(r.Device.IdentityEnds)})
	}
	contact := p.t.Say("status.never", nil)
	if !r.Device.LastContact.IsZero() {
		contact = p.moment(r.Device.LastContact)
	}
	if !r.Device.NextContact.IsZero() {
		contact = p.t.Say("status.next", map[string]any{"Last": contact, "Next": p.moment(r.Device.NextContact)})
	}
	var who []string
	for _, u := range r.Users {
		who = append(who, Printable(cmp.Or(u.Account, u.ID)))
	}
	fields := [][2]string{
		{"organization", Printable(r.Organization.Name)},
		{"device", Printable(cmp.Or(r.Device.Name, r.Device.ID))},
		{"identity", identity},
		{"server", Printable(r.Device.Server)},
		{"contact", contact},
		{"users", cmp.Or(strings.Join(who, ", "), p.t.Say("status.nobody", nil))},
	}
	var rows [][]string
	for _, f := range fields {
		if f[1] != "" {
			rows = append(rows, []string{p.t.Say("status."+f[0], nil), f[1]})
		}
	}
	p.table(nil, rows)
}

func (p *page) credentials(r Report) {
	all := current(r.Credentials)
	if len(all) == 0 {
		p.line(p.t.Say("status.nocredentials", nil))
		return
	}
	several := false
	for _, c := range all {
		several = several || c.User != all[0].User
	}
	head := []string{"mailbox", "state", "ends", "renews", "store", "protection", "proof"}
	if several {
		head = append([]string{"user"}, head...)
	}
	for i, name := range head {
		head[i] = p.t.Say("column."+name, nil)
	}
	rows := make([][]string, 0, len(all))
	for _, c := range all {
		row := p.row(c)
		if several {
			row = append([]string{Printable(cmp.Or(c.Account, c.User))}, row...)
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
}

// current leaves out attempts that came to nothing and that a newer one has
// taken up: people need not read history. The JSON form has all.
func current(all []Credential) []Credential {
	return slices.DeleteFunc(slices.Clone(all), func(c Credential) bool {
		return c.State == enroll.Over && slices.ContainsFunc(all, func(newer Credential) bool {
			return newer.ID > c.ID && newer.User == c.User && newer.Mailbox == c.Mailbox &&
				newer.Store == c.Store && newer.Profile == c.Profile
		})
	})
}

func (p *page) row(c Credential) []string {
	state := p.t.Word("state", Printable(string(c.State)))
	if c.Problem != nil {
		state += " (" + p.title(c.Problem.Code) + ")"
	}
	if c.NeededBy > 0 {
		state += ", " + p.t.Count("status.needed", c.NeededBy)
	}
	proof := "none"
	if c.Proof != nil {
		proof = "failed"
		if c.Proof.OK() {
			proof = "ok"
		}
	}
	renews := ""
	if c.State == enroll.Active && !c.Unwanted {
		renews = p.date(c.RenewAt)
	}
	return []string{
		Printable(c.Mailbox), state, p.date(c.NotAfter), renews, Printable(c.Store),
		p.t.Word("protection", Printable(c.Protection)), p.t.Say("proof."+proof, nil),
	}
}

func (p *page) title(code enroll.Code) string {
	return Printable(p.t.Explain(string(code), text.About{}).Title)
}

func (p *page) conditions(r Report) {
	p.line("")
	if len(r.Conditions) == 0 {
		p.line(p.t.Say("status.well", nil))
		return
	}
	for _, c := range r.Conditions {
		e := p.explanation(r, c)
		p.line(p.severity(c.Severity) + "  " + p.wrap(e.Text, 0))
		if c.Detail != "" {
			p.line(p.wrap("  "+Printable(c.Detail), 2))
		}
		p.line(p.wrap("  -> "+e.Cure, 5))
	}
}

// explanation says a condition in the page's language. What this program does
// not know, a newer service has explained in English.
func (p *page) explanation(r Report, c Condition) text.Explanation {
	e := text.Explanation{Title: c.Title, Text: c.Text, Cure: c.Cure}
	if p.t.Knows(string(c.Code)) || c.Text == "" {
		e = explain(p.t, c, r.Device, r.Organization)
	}
	return text.Explanation{Title: Printable(e.Title), Text: Printable(e.Text), Cure: Printable(e.Cure)}
}

func (p *page) date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateOnly)
}

func (p *page) moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
