package coverage

import (
	"slices"
	"strings"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
)

// The causes of a [controlv1.Leaver].
const (
	mailboxGone = "mailbox-gone"
	otherPerson = "other-person"
)

// Leaver judges one certificate in force; nil if its holder still is to have it. A mailbox that nobody has is told before one
// that somebody else has; whose a certificate is can be told only while its
// device still reports the user.
func Leaver(p *policy.Policy, e *controlv1.LedgerEntry, report *controlv1.SyncRequest) *controlv1.Leaver {
	account, upn := "", ""
	for _, user := range report.GetUsers() {
		if user.GetUser() == e.GetUser() {
			account, upn = user.GetAccount(), user.GetUpn()
		}
	}
	leaver := &controlv1.Leaver{Entry: e, Account: account}
	for _, mailbox := range e.GetMailboxes() {
		if len(p.Holders(mailbox)) == 0 {
			leaver.Cause, leaver.Mailbox = mailboxGone, mailbox
			return leaver
		}
	}
	if account == "" && upn == "" {
		return nil
	}
	var given []string
	for _, grant := range p.Grants(account, upn) {
		given = append(given, grant.Person.Mailboxes...)
	}
	for _, mailbox := range e.GetMailboxes() {
		if !slices.ContainsFunc(given, func(m string) bool { return strings.EqualFold(m, mailbox) }) {
			leaver.Cause, leaver.Mailbox = otherPerson, mailbox
			return leaver
		}
	}
	return nil
}
