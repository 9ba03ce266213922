package status

import (
	"cmp"
	"slices"

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
	for _, a := range e.Mail.Accounts {
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
