package helper

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// turnOfMail lets one task at a time write into mail programs.
const turnOfMail = "mail programs"

// Prepare has the user's mail programs use a credential, as policy wants, or puts
// back what they had before, and says how far each account is. A program that cannot be written now, or at all,
// is no error: its account says so. None is no error either.
func (s *Session) Prepare(ctx context.Context, w enroll.PrepareWanted) ([]enroll.MailAccount, error) {
	if _, err := s.preparing(w); err != nil { // at once, and not when the others are done
		return nil, err
	}
	return s.prepare(ctx, w.Store, func() (enroll.PrepareWanted, bool) { return w, true })
}

// prepare asks what is wanted when its turn has come: while it waits, something
// newer may be asked for, and done.
func (s *Session) prepare(ctx context.Context, store string, wish func() (enroll.PrepareWanted, bool)) ([]enroll.MailAccount, error) {
	release, err := s.turns.take(ctx, turnOfMail)
	if err != nil {
		return nil, s.failure(aboutStore, store, fmt.Errorf("wait for mail programs: %w", err))
	}
	defer release()
	w, wanted := wish()
	if !wanted {
		return nil, nil
	}
	p, err := s.preparing(w)
	if err != nil {
		return nil, err
	}
	accounts := p.all(ctx)
	if err := ctx.Err(); err != nil {
		return nil, s.failure(aboutStore, store, fmt.Errorf("prepare mail programs: %w", err))
	}
	s.awaitClose(w, accounts)
	return accounts, nil
}

// preparing is one task on its way.
type preparing struct {
	session *Session
	wanted  enroll.PrepareWanted
	leaf    *x509.Certificate
	earlier []*x509.Certificate
}

func (s *Session) preparing(w enroll.PrepareWanted) (*preparing, error) {
	if err := s.ours(w.Store, w.ID); err != nil {
		return nil, err
	}
	chain, err := parse(w.Chain)
	if err != nil {
		return nil, s.fail(enroll.Final, enroll.CodeCertificateRejected, w.Store, err)
	}
	p := &preparing{session: s, wanted: w, leaf: chain[0]}
	for _, der := range w.Earlier {
		if c, err := x509.ParseCertificate(der); err == nil { // one that nobody can read is in no program either
			p.earlier = append(p.earlier, c)
		}
	}
	return p, nil
}

// all goes through the programs that policy names.
func (p *preparing) all(ctx context.Context) []enroll.MailAccount {
	var list []enroll.MailAccount
	if p.session.MailPrograms == nil {
		return nil
	}
	for _, program := range p.session.MailPrograms() {
		if !p.wanted.Rule.Manages(program.Name()) {
			continue
		}
		for _, mailbox := range p.wanted.Mailboxes {
			accounts, err := program.Accounts(ctx, mailbox)
			for _, a := range accounts {
				switch ours := a.Info().Store == p.wanted.Store; {
				case !p.wanted.Undo:
					list = append(list, p.one(ctx, program, a))
				case ours: // no other credential's account
					list = append(list, p.undone(ctx, program, a))
				}
			}
			if err != nil && ctx.Err() == nil {
				list = append(list, p.failed(enroll.MailAccount{Program: program.Name(), Mailbox: mailbox}, err))
			}
		}
	}
	return list
}

func (p *preparing) failed(made enroll.MailAccount, err error) enroll.MailAccount {
	made.State, made.Detail = enroll.MailFailed, err.Error()
	switch {
	case errors.Is(err, platform.ErrBusy):
		made.State = enroll.MailBusy
	case errors.Is(err, platform.ErrManaged):
		made.State = enroll.MailManaged
	default:
		p.session.Log.Warn("mail program not prepared", "enrollment", p.wanted.ID, "program", made.Program, "account", made.ID, "error", err.Error())
	}
	return made
}

// otherStore is an account of a program that takes certificates from another
// store. If that cannot be used on this machine, no policy helps, and the log has
// the reason.
func (p *preparing) otherStore(ctx context.Context, made enroll.MailAccount) enroll.MailAccount {
	made.State = enroll.MailOtherStore
	p.session.mu.Lock()
	modules := p.session.modules
	p.session.mu.Unlock()
	_, failures, _ := p.session.list(ctx, modules) // without a list there is no reason to tell
	for _, err := range failures {
		if made.Store != "" && strings.Contains(err.Error(), made.Store) {
			made.Detail = err.Error()
			p.session.Log.Warn("mail program's store cannot be used", "program", made.Program, "store", made.Store, "error", err.Error())
		}
	}
	return made
}

// undone puts one account back to what it had before the agent came.
func (p *preparing) undone(ctx context.Context, program platform.MailProgram, a platform.MailAccount) enroll.MailAccount {
	info := a.Info()
	made := enroll.MailAccount{Program: program.Name(), Title: info.Title, ID: info.ID, Mailbox: info.Mailbox, Store: info.Store, State: enroll.MailUndone}
	before, unread := a.Settings(ctx) // only to tell whether anything changed
	if err := a.Undo(ctx); err != nil {
		return p.failed(made, fmt.Errorf("undo: %w", err))
	}
	if after, err := a.Settings(ctx); unread == nil && err == nil {
		made.Changed = len(before.Differing(after)) > 0 || len(after.Differing(before)) > 0
	}
	return made
}

// one brings one account to what policy wants, as far as that goes.
func (p *preparing) one(ctx context.Context, program platform.MailProgram, a platform.MailAccount) enroll.MailAccount {
	info := a.Info()
	made := enroll.MailAccount{Program: program.Name(), Title: info.Title, ID: info.ID, Mailbox: info.Mailbox, Store: info.Store}
	if info.Store != p.wanted.Store {
		return p.otherStore(ctx, made)
	}
	before, err := a.Settings(ctx)
	if err != nil {
		return p.failed(made, fmt.Errorf("read settings: %w", err))
	}
	want, own := p.settings(made.Key(), before)
	made.Own = words(own)
	restart, err := a.Apply(ctx, want)
	if err != nil {
		return p.failed(made, err)
	}
	after, err := a.Settings(ctx)
	if err != nil {
		return p.failed(made, fmt.Errorf("read settings back: %w", err))
	}
	missing := after.Differing(want)
	made.ByHand = words(slices.DeleteFunc(slices.Clone(missing), func(m platform.MailSetting) bool { return !slices.Contains(info.ByHand, m) }))
	for _, m := range missing {
		if !slices.Contains(info.ByHand, m) && !slices.Contains(info.Fixed, m) {
			return p.failed(made, fmt.Errorf("%s was written and is not there", m))
		}
	}
	made.Changed = len(before.Differing(after)) > 0
	made.State = enroll.MailReady
	if restart || after.Restart {
		made.State = enroll.MailRestart
	}
	return made
}

func words(settings []platform.MailSetting) []string {
	var list []string
	for _, m := range settings {
		list = append(list, string(m))
	}
	return list
}

// settings are what the account is to have, of what the credential is for; own
// are those where the person's own choice stays.
func (p *preparing) settings(account string, now platform.MailSettings) (want platform.MailSettings, own []platform.MailSetting) {
	w, ref := p.wanted, platform.RefTo(p.leaf)
	if w.Sign {
		want.Sign, want.ClearSign, want.Hash = onOff(w.Rule.Sign), onOff(w.Rule.ClearSign), w.Rule.Hash
		if p.chosen(account, now.Signing, w.Rule.Sign) {
			own = append(own, platform.MailSigning)
		} else {
			want.Signing = ref
		}
	}
	if w.Encrypt {
		want.Encrypt, want.Cipher = onOff(w.Rule.Encrypt), w.Rule.Cipher
		if p.chosen(account, now.Encryption, w.Rule.Encrypt) {
			own = append(own, platform.MailEncryption)
		} else {
			want.Encryption = ref
		}
	}
	return want, own
}

func onOff(w enroll.MailWord) platform.Switch {
	switch w {
	case enroll.MailAlways:
		return platform.On
	case enroll.MailNever:
		return platform.Off
	case enroll.MailUser:
	}
	return ""
}

// chosen says that the person set another certificate where the agent's own once
// was, and may. What was there before the agent came is no choice against it.
func (p *preparing) chosen(account string, now platform.CertificateRef, rule enroll.MailWord) bool {
	decides := rule != enroll.MailAlways && rule != enroll.MailNever
	if !decides || now.IsZero() || !slices.Contains(p.wanted.Prepared, account) || now.Same(platform.RefTo(p.leaf)) {
		return false
	}
	return !slices.ContainsFunc(p.earlier, func(c *x509.Certificate) bool { return now.Same(platform.RefTo(c)) })
}
