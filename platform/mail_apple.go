package platform

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"smime-agent/platform/internal/security"
)

// appleMail is the mail program of macOS. It has no setting for a certificate: it
// takes the one that the keychain prefers for the address. Whether it signs and
// encrypts it remembers itself, from the person's last message.
type appleMail struct {
	open func() (keychain, error)
	// dir keeps what was preferred before the first change.
	dir string
}

// Name is [MailProgram]'s.
func (appleMail) Name() string { return "apple-mail" }

// Accounts is [MailProgram]'s. Mail's own accounts are behind its sandbox; an
// address counts as an account if the keychain has a certificate for it.
func (p appleMail) Accounts(ctx context.Context, mailbox string) ([]MailAccount, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var spelled string
	err := p.use(func(k keychain) error {
		all, err := k.Certificates()
		for _, der := range all {
			c, bad := x509.ParseCertificate(der)
			if bad != nil {
				continue // somebody else's; it names no account of ours
			}
			if i := slices.IndexFunc(c.EmailAddresses, func(a string) bool { return strings.EqualFold(a, mailbox) }); i >= 0 && !c.IsCA {
				spelled = c.EmailAddresses[i]
			}
		}
		return err
	})
	if err != nil || spelled == "" {
		return nil, err
	}
	return []MailAccount{appleAccount{p, spelled}}, nil
}

func (p appleMail) use(do func(k keychain) error) error {
	if err := onKeychain(p.open, do); err != nil {
		return fmt.Errorf("preferences of the keychain: %w", keychainSentinel(err))
	}
	return nil
}

// appleAccount is what the keychain prefers for one address, in both spellings.
type appleAccount struct {
	program appleMail
	mailbox string
}

// Info is [MailAccount]'s.
func (a appleAccount) Info() MailAccountInfo {
	return MailAccountInfo{
		ID: strings.ToLower(a.mailbox), Title: "Mail", Mailbox: a.mailbox, Store: keychainName,
		ByHand: []MailSetting{MailSign, MailEncrypt}, Fixed: []MailSetting{MailClearSign, MailHash, MailCipher},
	}
}

// preferred are the certificates (DER) that serve an address; empty for none.
type preferred struct {
	Signing    []byte `json:"signing,omitempty"`
	Encryption []byte `json:"encryption,omitempty"`
}

// preferredFor reads both uses. Where two spellings of an address differ, a
// program that asks for the other one is not served: that counts as none.
func (a appleAccount) preferredFor(k keychain) (preferred, error) {
	var p preferred
	for i, address := range spellings([]string{a.mailbox}) {
		signing, err := preference(k, address, security.ForSigning)
		if err != nil {
			return p, err
		}
		encryption, err := preference(k, address, security.ForEncryption)
		if err != nil {
			return p, err
		}
		if i == 0 {
			p = preferred{signing, encryption}
		}
		if !bytes.Equal(p.Signing, signing) {
			p.Signing = nil
		}
		if !bytes.Equal(p.Encryption, encryption) {
			p.Encryption = nil
		}
	}
	return p, nil
}

func preference(k keychain, address string, use security.Use) ([]byte, error) {
	der, err := k.Preferred(address, use)
	if errors.Is(err, security.ItemNotFound) {
		return nil, nil
	}
	return der, err
}

// Settings is [MailAccount]'s.
func (a appleAccount) Settings(ctx context.Context) (MailSettings, error) {
	if err := ctx.Err(); err != nil {
		return MailSettings{}, err
	}
	var set MailSettings
	err := a.program.use(func(k keychain) error {
		p, err := a.preferredFor(k)
		set.Signing, set.Encryption = CertificateRef{Certificate: p.Signing}, CertificateRef{Certificate: p.Encryption}
		return err
	})
	return set, err
}

// Apply is [MailAccount]'s. Mail asks the keychain for each message, so that
// nothing needs a restart.
func (a appleAccount) Apply(ctx context.Context, want MailSettings) (bool, error) {
	is, err := a.Settings(ctx)
	if err != nil {
		return false, err
	}
	if len(is.Differing(MailSettings{Signing: want.Signing, Encryption: want.Encryption})) == 0 {
		return false, nil
	}
	next := preferred{is.Signing.Certificate, is.Encryption.Certificate}
	if len(want.Signing.Certificate) > 0 {
		next.Signing = want.Signing.Certificate
	}
	if len(want.Encryption.Certificate) > 0 {
		next.Encryption = want.Encryption.Certificate
	}
	err = a.program.use(func(k keychain) error {
		if err := a.keepFormer(k); err != nil {
			return err
		}
		return a.prefer(k, next)
	})
	return false, err
}

// prefer sets both uses. To prefer one for signing clears all others of the
// address, so that signing comes first.
func (a appleAccount) prefer(k keychain, p preferred) error {
	for _, address := range spellings([]string{a.mailbox}) {
		if len(p.Signing) == 0 {
			if err := k.Unprefer(address); err != nil && !errors.Is(err, security.ItemNotFound) {
				return fmt.Errorf("clear the preference for %s: %w", address, err)
			}
		} else if err := k.Prefer(p.Signing, address, security.ForSigning); err != nil {
			return fmt.Errorf("prefer the certificate for %s: %w", address, err)
		}
		if len(p.Encryption) == 0 || bytes.Equal(p.Encryption, p.Signing) && a.serves(k, address, p.Encryption) {
			continue
		}
		if err := k.Prefer(p.Encryption, address, security.ForEncryption); err != nil {
			return fmt.Errorf("prefer the certificate for %s: %w", address, err)
		}
	}
	return nil
}

// serves says that the certificate for signing serves for encryption too.
func (appleAccount) serves(k keychain, address string, der []byte) bool {
	is, err := preference(k, address, security.ForEncryption)
	return err == nil && bytes.Equal(is, der)
}

// former is the file with what was preferred before the first change.
func (a appleAccount) former() string {
	sum := sha256.Sum256([]byte(strings.ToLower(a.mailbox)))
	return filepath.Join(a.program.dir, hex.EncodeToString(sum[:8])+".json")
}

// keepFormer keeps each spelling apart, since they may have been set apart.
func (a appleAccount) keepFormer(k keychain) error {
	if _, err := os.Lstat(a.former()); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	was := map[string]preferred{}
	for _, address := range spellings([]string{a.mailbox}) {
		signing, err := preference(k, address, security.ForSigning)
		if err != nil {
			return err
		}
		encryption, err := preference(k, address, security.ForEncryption)
		if err != nil {
			return err
		}
		was[address] = preferred{signing, encryption}
	}
	raw, err := json.Marshal(was)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.program.dir, 0o700); err != nil {
		return fmt.Errorf("keep the former preferences: %w", err)
	}
	return writeWhole(a.former(), raw)
}

// writeWhole puts a file in its place at once, for this user alone.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// Undo is [MailAccount]'s.
func (a appleAccount) Undo(ctx context.Context) error {
	raw, err := os.ReadFile(a.former())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return fmt.Errorf("put the former preferences back: %w", err)
	}
	var was map[string]preferred
	if err := json.Unmarshal(raw, &was); err != nil {
		return fmt.Errorf("read %s: %w", a.former(), err)
	}
	err = a.program.use(func(k keychain) error {
		var all []error
		for address, p := range was {
			all = append(all, appleAccount{a.program, address}.putBack(k, p))
		}
		return errors.Join(all...)
	})
	if err != nil {
		return err
	}
	return os.Remove(a.former())
}

// putBack sets one spelling. A certificate that is gone meanwhile is preferred by
// nobody.
func (a appleAccount) putBack(k keychain, p preferred) error {
	if err := k.Unprefer(a.mailbox); err != nil && !errors.Is(err, security.ItemNotFound) {
		return err
	}
	for _, u := range []struct {
		der []byte
		use security.Use
	}{{p.Signing, security.ForSigning}, {p.Encryption, security.ForEncryption}} {
		if len(u.der) == 0 || a.serves(k, a.mailbox, u.der) && u.use == security.ForEncryption {
			continue
		}
		if err := k.Prefer(u.der, a.mailbox, u.use); err != nil && !errors.Is(err, security.ItemNotFound) {
			return err
		}
	}
	return nil
}

// outlookMac is Outlook for Mac: its certificate and its defaults lie in account
// records of its own, whose form is nobody's business, so that the person chooses.
type outlookMac struct {
	// app is where it is installed.
	app string
}

// Name is [MailProgram]'s.
func (outlookMac) Name() string { return "outlook-mac" }

// Accounts is [MailProgram]'s. Which mailboxes it has is not looked for: where it
// is installed, it counts as having this one.
func (p outlookMac) Accounts(ctx context.Context, mailbox string) ([]MailAccount, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.app); err != nil {
		return nil, nil //nolint:nilerr // not installed, or not for this user's eyes
	}
	return []MailAccount{outlookMacAccount{mailbox}}, nil
}

type outlookMacAccount struct{ mailbox string }

// Info is [MailAccount]'s.
func (a outlookMacAccount) Info() MailAccountInfo {
	return MailAccountInfo{
		ID: strings.ToLower(a.mailbox), Title: "Outlook", Mailbox: a.mailbox, Store: keychainName,
		ByHand: []MailSetting{MailSigning, MailEncryption, MailSign, MailEncrypt, MailClearSign, MailHash, MailCipher},
	}
}

// Settings is [MailAccount]'s: none can be read.
func (outlookMacAccount) Settings(ctx context.Context) (MailSettings, error) {
	return MailSettings{}, ctx.Err()
}

// Apply is [MailAccount]'s: nothing can be set.
func (outlookMacAccount) Apply(ctx context.Context, _ MailSettings) (bool, error) {
	return false, ctx.Err()
}

// Undo is [MailAccount]'s: nothing was ever set.
func (outlookMacAccount) Undo(ctx context.Context) error { return ctx.Err() }
