package platform

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // Outlook names certificates by it; nothing relies on it
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
)

// What a mail program may answer beside the five sentinels.
var (
	// ErrBusy says that the program runs and would overwrite what is written, so
	// that nothing was written. It passes when the program is closed.
	ErrBusy = errors.New("the mail program is running")
	// ErrManaged says that other management (a group policy, a file of the
	// administrator's) holds a setting at another value, so that nothing was written.
	ErrManaged = errors.New("held by other management")
)

// MailProgram is one mail program of this user, whether it is installed or not.
type MailProgram interface {
	// Name is a stable word: "thunderbird", "outlook", "apple-mail", "outlook-mac".
	Name() string
	// Accounts finds the accounts of a mailbox, whose case does not matter, in a
	// stable order. None is no error: the program is not installed, was never
	// started, or does not have the mailbox. Accounts that exist but cannot be
	// looked at are left out and joined in the error, beside those that can.
	Accounts(ctx context.Context, mailbox string) ([]MailAccount, error)
}

// MailAccount is what a program knows of one mailbox: a Thunderbird identity, an
// Outlook profile, Apple Mail's preference for an address. All that it keeps for
// others stays as it is, byte for byte. It is safe for use by one goroutine at a
// time.
type MailAccount interface {
	Info() MailAccountInfo
	// Settings reads what is set. What the program has no setting for, or what
	// cannot be read, is zero.
	Settings(ctx context.Context) (MailSettings, error)
	// Apply sets what is not zero, leaves the rest, and reads it back. It keeps
	// what was there before its first change, for Undo, and writes nothing if
	// nothing differs. A kill leaves the old settings or the new ones, whole. What
	// [MailAccountInfo] says cannot be set is passed over. [ErrBusy], [ErrManaged],
	// [ErrDenied]; then nothing was written. restart says that the program runs and
	// goes on with the old settings until its next start.
	Apply(ctx context.Context, want MailSettings) (restart bool, err error)
	// Undo puts back the former bytes of all that Apply ever changed, and nothing
	// else. nil if it never changed anything. [ErrBusy] as for Apply.
	Undo(ctx context.Context) error
}

// MailAccountInfo is what an account says of itself.
type MailAccountInfo struct {
	// ID is stable and unique within the program: "abcd.default/id1".
	ID string
	// Title is what people call the program: "Thunderbird".
	Title string
	// Mailbox is the address as the program spells it.
	Mailbox string
	// Store is the [StoreInfo.Name] of the store from which alone the account takes
	// keys and certificates.
	Store string
	// ByHand are settings that no tool can set, only the person in the program.
	ByHand []MailSetting
	// Fixed are settings that the program decides itself; nobody can set them.
	Fixed []MailSetting
}

// MailSetting names one of the settings.
type MailSetting string

// The settings, as [MailSettings] has them.
const (
	MailSigning    MailSetting = "signing-certificate"
	MailEncryption MailSetting = "encryption-certificate"
	MailSign       MailSetting = "sign"
	MailEncrypt    MailSetting = "encrypt"
	MailClearSign  MailSetting = "clear-sign"
	MailHash       MailSetting = "hash"
	MailCipher     MailSetting = "cipher"
)

// Switch is a setting that is on, off, or (empty) not said.
type Switch string

// The switches.
const (
	On  Switch = "on"
	Off Switch = "off"
)

// MailSettings are what an account does with S/MIME, or shall do. Zero fields
// say nothing: there is no such setting, or it is to be left alone.
type MailSettings struct {
	// Signing and Encryption are the certificates that the account uses.
	Signing, Encryption CertificateRef
	// Sign and Encrypt are the defaults of a new message.
	Sign, Encrypt Switch
	// ClearSign makes multipart/signed, which every program shows, instead of
	// application/pkcs7-mime (RFC 8551 §3.5).
	ClearSign Switch
	// Hash is "sha-256", "sha-384" or "sha-512"; Cipher "aes-128", "aes-192" or "aes-256".
	Hash, Cipher string
	// Restart, when reading, says that the program has been running since before
	// the settings were written and does not know them yet.
	Restart bool
}

// Differing lists what want says and s does not have.
func (s MailSettings) Differing(want MailSettings) []MailSetting {
	var list []MailSetting
	add := func(differs bool, name MailSetting) {
		if differs {
			list = append(list, name)
		}
	}
	add(!want.Signing.IsZero() && !s.Signing.Same(want.Signing), MailSigning)
	add(!want.Encryption.IsZero() && !s.Encryption.Same(want.Encryption), MailEncryption)
	add(want.Sign != "" && s.Sign != want.Sign, MailSign)
	add(want.Encrypt != "" && s.Encrypt != want.Encrypt, MailEncrypt)
	add(want.ClearSign != "" && s.ClearSign != want.ClearSign, MailClearSign)
	add(want.Hash != "" && s.Hash != want.Hash, MailHash)
	add(want.Cipher != "" && s.Cipher != want.Cipher, MailCipher)
	return list
}

// CertificateRef is how settings name a certificate. Programs differ in it:
// Thunderbird keeps issuer and serial number, Outlook the SHA-1 of the
// certificate, Apple Mail the certificate. One made by [RefTo] has all.
type CertificateRef struct {
	// Issuer is the name (DER), Serial the contents of the INTEGER with its leading zero.
	Issuer, Serial []byte
	SHA1           []byte
	// Certificate is DER.
	Certificate []byte
}

// RefTo names a certificate in every way.
func RefTo(c *x509.Certificate) CertificateRef {
	sum := sha1.Sum(c.Raw) //nolint:gosec // see above
	return CertificateRef{Issuer: c.RawIssuer, Serial: serialOctets(c), SHA1: sum[:], Certificate: c.Raw}
}

// serialOctets are the contents octets of the serial number: what
// [x509.Certificate] gives as a number has lost the leading zero.
func serialOctets(c *x509.Certificate) []byte {
	der, err := asn1.Marshal(c.SerialNumber)
	var raw asn1.RawValue
	if err == nil {
		_, err = asn1.Unmarshal(der, &raw)
	}
	if err != nil {
		return c.SerialNumber.Bytes() // unreachable: every integer can be written
	}
	return raw.Bytes
}

// IsZero says that no certificate is named.
func (r CertificateRef) IsZero() bool {
	return len(r.Issuer) == 0 && len(r.Serial) == 0 && len(r.SHA1) == 0 && len(r.Certificate) == 0
}

// Same says that both name the same certificate, by what both have.
func (r CertificateRef) Same(o CertificateRef) bool {
	switch {
	case len(r.Certificate) > 0 && len(o.Certificate) > 0:
		return bytes.Equal(r.Certificate, o.Certificate)
	case len(r.SHA1) > 0 && len(o.SHA1) > 0:
		return bytes.Equal(r.SHA1, o.SHA1)
	case len(r.Issuer) > 0 && len(o.Issuer) > 0:
		return bytes.Equal(r.Issuer, o.Issuer) && bytes.Equal(r.Serial, o.Serial)
	}
	return r.IsZero() && o.IsZero()
}

// String is for logs: the SHA-1, or the serial number, in hex.
func (r CertificateRef) String() string {
	switch {
	case len(r.SHA1) > 0:
		return "sha1 " + hex.EncodeToString(r.SHA1)
	case len(r.Serial) > 0:
		return "serial " + hex.EncodeToString(r.Serial)
	}
	return "none"
}

// MailOptions says where to look for mail programs.
type MailOptions struct {
	// Home is the user's home folder; empty means that of this process.
	Home string
}

// MailPrograms gives the mail programs that can be used on this system.
func MailPrograms(o MailOptions) []MailProgram { return mailPrograms(o) }
