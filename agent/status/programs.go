package status

import (
	"cmp"
	"slices"
	"strings"

	"smime-agent/agent/enroll"
)

// mailCodes are the conditions that the states of a mail account stand for.
var mailCodes = map[enroll.MailState]enroll.Code{
	enroll.MailRestart:    enroll.CodeMailRestart,
	enroll.MailBusy:       enroll.CodeMailRestart,
	enroll.MailManaged:    enroll.CodeMailManaged,
	enroll.MailFailed:     enroll.CodeMailFailed,
	enroll.MailOtherStore: enroll.CodeMailOtherStore,
}

// judgePrograms finds what is not done yet in the mail programs, once for each program.
func (b *builder) judgePrograms(e enroll.Enrollment) {
	if e.Mail == nil {
		return
	}
	about := Raised{User: e.Assignment.User, Mailbox: e.Mailbox(), Enrollment: e.ID}
	if p := e.Mail.Problem; p != nil {
		r := about
		r.Code, r.Since, r.Detail = p.Code, p.Since, p.Hint
		b.raise(r)
		return
	}
	if e.Mail.Undone {
		r := about
		r.Code, r.Since = enroll.CodeMailUndone, e.Mail.At
		b.raise(r)
	}
	for _, a := range e.Mail.Accounts {
		b.judgeOld(e, a)
		r := about
		r.Program, r.Since = cmp.Or(a.Title, a.Program), a.Since
		code, ok := mailCodes[a.State]
		if a.State == enroll.MailOtherStore && b.served(e, a) {
			ok = false
		}
		if ok {
			r.Code = code
			b.raise(r)
		}
		if len(a.ByHand) > 0 {
			r.Code = enroll.CodeMailByHand
			b.raise(r)
		}
	}
}

// judgeOld finds a program that goes on with the certificate before, when that is
// about to end.
func (b *builder) judgeOld(e enroll.Enrollment, a enroll.MailAccount) {
	old, ok := b.byID[e.Replaces]
	waits := (a.State == enroll.MailBusy || a.State == enroll.MailRestart) && !e.Mail.Undone
	if !ok || !waits || old.NotAfter.IsZero() {
		return
	}
	if warnAt := old.NotAfter.Add(-endingWindow(old)); !b.now.Before(warnAt) {
		b.raise(Raised{
			Code: enroll.CodeMailOldCertificate, User: e.Assignment.User, Mailbox: e.Mailbox(), Enrollment: e.ID,
			Program: cmp.Or(a.Title, a.Program), Since: warnAt, Until: old.NotAfter,
		})
	}
}

// mailOf leaves out what is for the log.
func mailOf(e enroll.Enrollment) []enroll.MailAccount {
	all := slices.Clone(e.Mail.Accounts)
	for i := range all {
		all[i].Detail = ""
	}
	return all
}

// served says that another credential of the user is in the store from which the
// account takes its certificates.
func (b *builder) served(e enroll.Enrollment, a enroll.MailAccount) bool {
	for _, o := range b.byID {
		if o.Assignment.User == e.Assignment.User && o.Store == a.Store && o.State == enroll.Active && o.Mailbox() == e.Mailbox() {
			return true
		}
	}
	return false
}

// programs writes how far the mail programs are, of what is in use. Columns that
// nobody needs are left out.
func (p *page) programs(r Report) {
	var all []programRow
	byHand, own := false, false
	for _, c := range r.Credentials {
		if c.State != enroll.Active {
			continue
		}
		for _, a := range c.Mail {
			all = append(all, programRow{cmp.Or(c.Account, c.User), a})
			byHand, own = byHand || len(a.ByHand) > 0, own || len(a.Own) > 0
		}
	}
	if len(all) == 0 {
		return
	}
	several := slices.ContainsFunc(all, func(row programRow) bool { return row.user != all[0].user })
	columns := []column{
		{"user", several, func(row programRow) string { return Printable(row.user) }},
		{"program", true, func(row programRow) string { return Printable(cmp.Or(row.account.Title, row.account.Program)) }},
		{"mailbox", true, func(row programRow) string { return Printable(row.account.Mailbox) }},
		{"account", true, func(row programRow) string { return Printable(row.account.ID) }},
		{"state", true, func(row programRow) string { return p.t.Word("mailstate", Printable(string(row.account.State))) }},
		{"byhand", byHand, func(row programRow) string { return p.settings(row.account.ByHand) }},
		{"own", own, func(row programRow) string { return p.settings(row.account.Own) }},
	}
	columns = slices.DeleteFunc(columns, func(c column) bool { return !c.wanted })
	var head []string
	rows := make([][]string, len(all))
	for _, c := range columns {
		head = append(head, p.t.Say("column."+c.name, nil))
		for i, row := range all {
			rows[i] = append(rows[i], c.cell(row))
		}
	}
	p.line("")
	p.table(head, rows)
}

type programRow struct {
	user    string
	account enroll.MailAccount
}

type column struct {
	name   string
	wanted bool
	cell   func(programRow) string
}

// settings names settings of mail programs; "-" for none.
func (p *page) settings(words []string) string {
	named := make([]string, 0, len(words))
	for _, w := range words {
		named = append(named, p.t.Word("mailsetting", Printable(w)))
	}
	return cmp.Or(strings.Join(named, ", "), "-")
}
