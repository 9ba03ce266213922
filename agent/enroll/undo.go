package enroll

import (
	"errors"
	"reflect"
	"slices"
	"time"
)

// ErrMailRuled says that policy rules what is to be undone, with always or never.
var ErrMailRuled = errors.New("policy rules the mail programs")

// UndoMail has the mail programs of these, and of whatever shares a mailbox with
// them, put back to what they had before the agent came, as soon as the session is
// there and the programs are closed. That holds, over renewals, until policy says
// something else of mail programs or [Engine.ApplyMail] ends it, and also for what is
// revoked, or what policy gives no longer. Where policy rules
// a switch it is [ErrMailRuled], unless overrule says that an administrator asks.
func (g *Engine) UndoMail(ids []ID, overrule bool) error {
	if !overrule && g.mailRuled(ids) {
		return ErrMailRuled
	}
	return g.wishMail(ids, true)
}

func (g *Engine) mailRuled(ids []ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.order, func(n *entry) bool {
		return g.together(ids, n.e) && (n.e.State == Active || n.e.inProgress()) && g.mailRule(n.e).rules()
	})
}

// rules says that a switch, or one certificate for it, is not the person's to choose.
func (r MailRule) rules() bool {
	return len(r.Programs) > 0 && slices.ContainsFunc([]MailWord{r.Sign, r.Encrypt, r.ClearSign}, func(w MailWord) bool {
		return w == MailAlways || w == MailNever
	})
}

// ApplyMail has the mail programs of these, and of whatever shares a mailbox with
// them, made ready as policy wants, at once.
func (g *Engine) ApplyMail(ids []ID) error { return g.wishMail(ids, false) }

// wishMail puts the wish on record. What was known of the accounts goes: after an
// undo, no certificate in them is the person's choice against the agent's.
func (g *Engine) wishMail(ids []ID, undo bool) error {
	g.mu.Lock()
	defer g.unlock()
	var changed []Enrollment
	for _, n := range g.order {
		e := n.e
		switch {
		case !g.together(ids, e):
			continue
		case undo && (e.State == Active || e.inProgress() && e.Mail != nil):
			e.Mail = &Preparation{At: g.now(), Rule: e.Mail.rule(), Undone: true}
			e.Mail.Rule = g.mailRule(e)
		case e.Mail != nil && (undo || e.Mail.Undone):
			e.Mail = nil
		case e.State != Active || e.Mail == nil:
			continue
		}
		e.NextMail, n.tried = g.now(), time.Time{} // somebody is looking on
		changed = append(changed, e)
	}
	return g.commit(changed)
}

// together says that e is one of these, or shares a mailbox with one. Callers hold mu.
func (g *Engine) together(ids []ID, e Enrollment) bool {
	return slices.ContainsFunc(ids, func(id ID) bool {
		o, ok := g.byID[id]
		return ok && sharesMailbox(o.e, e)
	})
}

func sharesMailbox(a, b Enrollment) bool {
	boxes := mailboxSet(a.Assignment.Mailboxes)
	return a.Assignment.User == b.Assignment.User &&
		slices.ContainsFunc(b.Assignment.Mailboxes, func(m string) bool { return boxes[foldMailbox(m)] })
}

// heldUndone says that an undo is in force for an enrollment: its own, or that of
// one in use that it shares a mailbox with, under the same rule. Callers hold mu.
func (g *Engine) heldUndone(e Enrollment, rule MailRule) bool {
	if e.Mail != nil {
		return e.Mail.Undone && reflect.DeepEqual(rule, e.Mail.Rule)
	}
	return slices.ContainsFunc(g.order, func(n *entry) bool {
		return n.e.State == Active && n.e.Mail != nil && n.e.Mail.Undone && reflect.DeepEqual(rule, n.e.Mail.Rule) && sharesMailbox(n.e, e)
	})
}

// rule is what was followed last.
func (p *Preparation) rule() MailRule {
	if p == nil {
		return MailRule{}
	}
	return p.Rule
}

// wishes says that an undo is wanted.
func (p *Preparation) wishes() bool { return p != nil && p.Undone }

// undone says that it is done everywhere, so that there is nothing left to look at.
func (p *Preparation) undone() bool {
	return p.wishes() && p.Problem == nil && p.Attempts == 0 && p.Accounts != nil &&
		!slices.ContainsFunc(p.Accounts, func(a MailAccount) bool { return a.State == MailBusy || a.State == MailFailed })
}
