package platform

import (
	"context"
	"errors"
	"fmt"

	"smime-agent/platform/internal/outlook"
)

// outlookTitle is the program as people know it; classicOutlook its file.
const (
	outlookTitle   = "Outlook"
	classicOutlook = "OUTLOOK.EXE"
)

// outlookClassic is the Outlook that keeps MAPI profiles. All that is written are
// two values in each profile; group policy's own values are the administrator's.
type outlookClassic struct{}

// Name is [MailProgram]'s.
func (outlookClassic) Name() string { return "outlook" }

// Accounts is [MailProgram]'s: every profile that has the mailbox.
func (outlookClassic) Accounts(ctx context.Context, mailbox string) ([]MailAccount, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, err := outlook.Accounts(userRegistry{}, mailbox)
	list := make([]MailAccount, 0, len(found))
	for _, a := range found {
		list = append(list, outlookAccount{a})
	}
	return list, err
}

type outlookAccount struct{ profile outlook.Account }

// Info is [MailAccount]'s. Clear signing is a choice in the Trust Center, whose
// place is not known, or group policy's.
func (a outlookAccount) Info() MailAccountInfo {
	return MailAccountInfo{
		ID: a.profile.Version + "/" + a.profile.Profile, Title: outlookTitle, Mailbox: a.profile.Mailbox, Store: windowsStoreName,
		ByHand: []MailSetting{MailClearSign},
	}
}

// Settings is [MailAccount]'s. What group policy holds counts for what is set.
func (a outlookAccount) Settings(ctx context.Context) (MailSettings, error) {
	if err := ctx.Err(); err != nil {
		return MailSettings{}, err
	}
	s, err := a.profile.State()
	if err != nil {
		return MailSettings{}, fmt.Errorf("%s: %w", a.Info().ID, err)
	}
	set := MailSettings{Signing: CertificateRef{SHA1: s.SignSHA1}, Encryption: CertificateRef{SHA1: s.EncryptSHA1}, Cipher: s.Cipher, Hash: s.Hash}
	if s.Flagged {
		set.Sign, set.Encrypt = switched(s.Sign), switched(s.Encrypt)
	}
	for name, value := range s.Held {
		switch name {
		case "sign":
			set.Sign = Switch(value)
		case "encrypt":
			set.Encrypt = Switch(value)
		case "clear-sign":
			set.ClearSign = Switch(value)
		case "cipher":
			set.Cipher = value
		case "hash":
			set.Hash = value
		}
	}
	return set, nil
}

func switched(on bool) Switch {
	if on {
		return On
	}
	return Off
}

// heldAs are the words of [outlook.State.Held].
func heldAs(s MailSetting) string {
	switch s {
	case MailSign:
		return "sign"
	case MailEncrypt:
		return "encrypt"
	case MailHash:
		return "hash"
	case MailCipher:
		return "cipher"
	case MailSigning, MailEncryption, MailClearSign:
	}
	return ""
}

// Apply is [MailAccount]'s. Outlook keeps the profile open while it runs, and
// nobody knows whether it writes its own copy back, so nothing is written then.
func (a outlookAccount) Apply(ctx context.Context, want MailSettings) (bool, error) {
	want.ClearSign = "" // by hand
	is, err := a.Settings(ctx)
	if err != nil {
		return false, err
	}
	differing := is.Differing(want)
	if len(differing) == 0 {
		return false, nil
	}
	s, err := a.profile.State()
	if err != nil {
		return false, err
	}
	for _, setting := range differing {
		if held := s.Held[heldAs(setting)]; held != "" {
			return false, fmt.Errorf("%s of %s is %s by policy: %w", setting, a.Info().ID, held, ErrManaged)
		}
	}
	if err := a.closed(); err != nil {
		return false, err
	}
	change := outlook.Change{
		SignSHA1: want.Signing.SHA1, EncryptSHA1: want.Encryption.SHA1, Cipher: want.Cipher, Hash: want.Hash, Sign: wanted(want.Sign), Encrypt: wanted(want.Encrypt),
	}
	if err := a.profile.Apply(change); err != nil {
		return false, fmt.Errorf("%s: %w", a.Info().ID, err)
	}
	return false, nil
}

func wanted(s Switch) *bool {
	if s == "" {
		return nil
	}
	on := s == On
	return &on
}

// closed is [ErrBusy] while Outlook runs.
func (a outlookAccount) closed() error {
	runs, err := running(classicOutlook)
	if err != nil {
		return err
	}
	if runs {
		return fmt.Errorf("%s: %w", a.Info().ID, ErrBusy)
	}
	return nil
}

// Undo is [MailAccount]'s.
func (a outlookAccount) Undo(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	changed, err := a.profile.Changed()
	if err != nil || !changed {
		return err
	}
	if err := a.closed(); err != nil {
		return err
	}
	return a.profile.Undo()
}

// outlookNew is the Outlook that came after. It takes the certificate with the
// newest beginning from the user's store by itself; all else is set for the whole
// organization in Exchange, so that there is nothing to write here.
type outlookNew struct{}

// Name is [MailProgram]'s.
func (outlookNew) Name() string { return "outlook-new" }

// Accounts is [MailProgram]'s. Which mailboxes it has is not looked for: where the
// person has switched to it, it counts as having his.
func (outlookNew) Accounts(ctx context.Context, mailbox string) ([]MailAccount, error) {
	uses, err := outlook.UsesNew(userRegistry{})
	if err = errors.Join(err, ctx.Err()); err != nil || !uses {
		return nil, err
	}
	return []MailAccount{outlookNewAccount{mailbox}}, nil
}

type outlookNewAccount struct{ mailbox string }

// Info is [MailAccount]'s.
func (a outlookNewAccount) Info() MailAccountInfo {
	return MailAccountInfo{
		ID: "new", Title: "Outlook (new)", Mailbox: a.mailbox, Store: windowsStoreName,
		Fixed: []MailSetting{MailSigning, MailEncryption, MailSign, MailEncrypt, MailClearSign, MailHash, MailCipher},
	}
}

// Settings is [MailAccount]'s: none can be read here.
func (outlookNewAccount) Settings(ctx context.Context) (MailSettings, error) {
	return MailSettings{}, ctx.Err()
}

// Apply is [MailAccount]'s: nothing can be set here.
func (outlookNewAccount) Apply(ctx context.Context, _ MailSettings) (bool, error) {
	return false, ctx.Err()
}

// Undo is [MailAccount]'s: nothing was ever set.
func (outlookNewAccount) Undo(ctx context.Context) error { return ctx.Err() }
