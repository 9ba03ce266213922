package platform

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// thunderbirdAccount is one identity of a profile. Thunderbird rewrites prefs.js
// when it ends, so that it is written only while the profile's lock is free.
type thunderbirdAccount struct {
	profile           thunderbirdProfile
	identity, mailbox string
}

var _ MailAccount = (*thunderbirdAccount)(nil)

// The files of a profile: Thunderbird's, what the person or an administrator
// has set over it at each start, and ours, which is for Undo.
const (
	prefsName   = "prefs.js"
	userPrefs   = "user.js"
	undoRecords = "smime-agent-undo.json"
)

// The preferences of an identity (mailnews/extensions/smime in comm-central).
const (
	prefSigningName     = "signing_cert_name"
	prefSigningKey      = "signing_cert_dbkey"
	prefEncryptionName  = "encryption_cert_name"
	prefEncryptionKey   = "encryption_cert_dbkey"
	prefSign            = "sign_mail"
	prefEncrypt         = "encryptionpolicy" // 0 off, 2 on; 1 was never made
	prefTechnology      = "e2etechpref"      // 0 automatic, 1 S/MIME, 2 OpenPGP
	prefOpenPGP         = "openpgp_key_id"
	encryptionOff       = 0
	encryptionOn        = 2
	preferSMIME         = 1
	identityDefaultPref = "mail.identity.default."
)

// profilePrefs are both files of a profile, and what the installation's policies
// say.
type profilePrefs struct {
	own, over prefsFile
	policies  prefPolicies
}

// readPrefs reads a profile's files; one without prefs.js was never started.
func readPrefs(dir string) (p profilePrefs, err error) {
	if p.own, err = readPrefsFile(filepath.Join(dir, prefsName)); err != nil {
		return p, err
	}
	p.over, err = readPrefsFile(filepath.Join(dir, userPrefs))
	return p, err
}

func readPrefsFile(path string) (prefsFile, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return prefsFile{}, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		return prefsFile{}, fmt.Errorf("%s is no plain file: %w", filepath.Base(path), ErrUnsupported)
	}
	if err != nil {
		return prefsFile{}, denied(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return prefsFile{}, denied(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPrefs+1))
	if err != nil {
		return prefsFile{}, err
	}
	file, err := newPrefsFile(data)
	if err != nil {
		return prefsFile{}, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return file, nil
}

// value is what holds at the next start.
func (p profilePrefs) value(name string) any {
	held, drops := p.policies.held[name]
	if held != nil {
		return held
	}
	for _, f := range []prefsFile{p.over, p.own} {
		if s, ok := f.find(name); ok && !drops {
			return s.value
		}
	}
	return p.policies.defaults[name]
}

// holder says who else holds a preference; empty if it is the profile's own.
func (p profilePrefs) holder(name string) string {
	if _, held := p.policies.held[name]; held {
		return "Thunderbird's policies"
	}
	if _, held := p.over.find(name); held {
		return userPrefs
	}
	return ""
}

func (p profilePrefs) text(name string) string {
	s, _ := p.value(name).(string)
	return s
}

// identities lists those that accounts use.
func (p profilePrefs) identities() []string {
	var ids []string
	for account := range strings.SplitSeq(p.text("mail.accountmanager.accounts"), ",") {
		for id := range strings.SplitSeq(p.text("mail.account."+strings.TrimSpace(account)+".identities"), ",") {
			if id = strings.TrimSpace(id); id != "" && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func (a *thunderbirdAccount) Info() MailAccountInfo {
	return MailAccountInfo{
		ID: filepath.Base(a.profile.dir) + "/" + a.identity, Title: "Thunderbird", Mailbox: a.mailbox, Store: a.profile.store,
		Fixed: []MailSetting{MailClearSign, MailHash, MailCipher}, // multipart/signed; the hash follows the key, the cipher the recipients
	}
}

func (a *thunderbirdAccount) name(pref string) string {
	return "mail.identity." + a.identity + "." + pref
}

// of gives a preference of the identity, or what holds for all identities.
func (a *thunderbirdAccount) of(p profilePrefs, name string) any {
	if v := p.value(a.name(name)); v != nil {
		return v
	}
	return p.value(identityDefaultPref + name)
}

func (a *thunderbirdAccount) prefs() (profilePrefs, error) {
	p, err := readPrefs(a.profile.dir)
	p.policies = a.profile.of.policies()
	return p, err
}

func (a *thunderbirdAccount) Settings(context.Context) (MailSettings, error) {
	p, err := a.prefs()
	if err != nil {
		return MailSettings{}, a.failed("read settings", err)
	}
	s := MailSettings{
		Signing: a.certificate(p, prefSigningName, prefSigningKey), Encryption: a.certificate(p, prefEncryptionName, prefEncryptionKey),
		Sign: Off, Encrypt: Off, ClearSign: On,
	}
	if a.of(p, prefSign) == true {
		s.Sign = On
	}
	if a.of(p, prefEncrypt) == encryptionOn {
		s.Encrypt = On
	}
	return s, nil
}

// certificate needs both: without the name the compose window takes S/MIME as
// not set up, and only the dbKey picks the certificate.
func (a *thunderbirdAccount) certificate(p profilePrefs, name, key string) CertificateRef {
	if p.text(a.name(name)) == "" {
		return CertificateRef{}
	}
	ref, err := parseDBKey(p.text(a.name(key)))
	if err != nil {
		return CertificateRef{} // Thunderbird takes none for it either
	}
	return ref
}

// change is one preference to be set.
type prefChange struct {
	name  string
	value any
}

// changes are what must be set, of what is not as wanted.
func (a *thunderbirdAccount) changes(p profilePrefs, want MailSettings) ([]prefChange, error) {
	var list []prefChange
	set := func(name string, value any) {
		if a.of(p, name) != value {
			list = append(list, prefChange{a.name(name), value})
		}
	}
	for _, c := range []struct {
		ref       CertificateRef
		now       CertificateRef
		name, key string
	}{
		{want.Signing, a.certificate(p, prefSigningName, prefSigningKey), prefSigningName, prefSigningKey},
		{want.Encryption, a.certificate(p, prefEncryptionName, prefEncryptionKey), prefEncryptionName, prefEncryptionKey},
	} {
		if c.ref.IsZero() || c.now.Same(c.ref) {
			continue
		}
		leaf, err := x509.ParseCertificate(c.ref.Certificate)
		if err != nil {
			return nil, fmt.Errorf("certificate to be used: %w", err)
		}
		set(c.name, certificateTitle(leaf))
		set(c.key, dbKey(c.ref))
	}
	switch want.Encrypt {
	case On:
		set(prefEncrypt, encryptionOn)
	case Off:
		set(prefEncrypt, encryptionOff)
	}
	// Signing comes last, as people would do it: a file cut short would not sign
	// without a certificate. (It is never cut short.)
	switch want.Sign {
	case On:
		set(prefSign, true)
	case Off:
		set(prefSign, false)
	}
	if (want.Sign == On || want.Encrypt == On) && p.text(a.name(prefOpenPGP)) != "" {
		set(prefTechnology, preferSMIME) // with a key for each, automatic takes OpenPGP
	}
	return withoutDefaults(p, list), nil
}

// withoutDefaults drops what is switched off anyway: absent is off.
func withoutDefaults(p profilePrefs, list []prefChange) []prefChange {
	return slices.DeleteFunc(list, func(c prefChange) bool {
		return p.value(c.name) == nil && (c.value == false || c.value == encryptionOff) && p.value(identityDefaultPref+c.name[strings.LastIndexByte(c.name, '.')+1:]) == nil
	})
}

// certificateTitle is what the account settings show.
func certificateTitle(leaf *x509.Certificate) string {
	who := leaf.Subject.CommonName
	if len(leaf.EmailAddresses) > 0 {
		who = leaf.EmailAddresses[0]
	}
	return who + " " + leaf.NotAfter.UTC().Format(time.DateOnly)
}

func (a *thunderbirdAccount) Apply(ctx context.Context, want MailSettings) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	p, err := a.prefs()
	if err != nil {
		return false, a.failed("read settings", err)
	}
	list, err := a.changes(p, want)
	if err != nil || len(list) == 0 {
		return false, err
	}
	for _, c := range list {
		if who := p.holder(c.name); who != "" {
			return false, a.failed("set "+c.name, fmt.Errorf("%s has it: %w", who, ErrManaged))
		}
	}
	if err := a.closed(); err != nil {
		return false, err
	}
	file := p.own
	for _, c := range list {
		if file, err = file.with(c.name, prefLine(c.name, c.value)); err != nil {
			return false, a.failed("set "+c.name, err)
		}
	}
	if err := a.remember(p.own, list); err != nil {
		return false, a.failed("keep former settings", err)
	}
	return false, a.write(file.data)
}

// write replaces prefs.js, and says so if Thunderbird was started meanwhile: it
// may have read the former one, and will overwrite this one.
func (a *thunderbirdAccount) write(data []byte) error {
	path, mode := filepath.Join(a.profile.dir, prefsName), fs.FileMode(0o600)
	if info, err := os.Lstat(path); err == nil {
		mode = info.Mode().Perm()
	}
	if err := WriteFile(path, data, mode); err != nil {
		return a.failed("write settings", err)
	}
	return a.closed()
}

// closed is ErrBusy while Thunderbird has the profile open.
func (a *thunderbirdAccount) closed() error {
	running, err := profileInUse(a.profile.dir)
	switch {
	case err != nil:
		return a.failed("look whether Thunderbird runs", err)
	case running:
		return a.failed("write settings", ErrBusy)
	}
	return nil
}

func (a *thunderbirdAccount) failed(what string, err error) error {
	return fmt.Errorf("%s of %s: %w", what, a.Info().ID, err)
}

// former is what an identity's preferences were before our first change: their
// statements, or null where there was none.
type former struct {
	Statements map[string]*string `json:"statements"`
	// Ended is the line end that the first change gave to the file's last line.
	Ended string `json:"ended,omitempty"`
}

func (a *thunderbirdAccount) records() (map[string]former, error) {
	all := map[string]former{}
	data, err := os.ReadFile(filepath.Join(a.profile.dir, undoRecords))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", undoRecords, denied(err))
	}
	if all == nil {
		all = map[string]former{} // "null"
	}
	return all, nil
}

func (a *thunderbirdAccount) keepRecords(all map[string]former) error {
	path := filepath.Join(a.profile.dir, undoRecords)
	if len(all) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return denied(err)
		}
		return nil
	}
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return WriteFile(path, data, 0o600)
}

// remember keeps the statements that will be changed for the first time.
func (a *thunderbirdAccount) remember(f prefsFile, list []prefChange) error {
	all, err := a.records()
	if err != nil {
		return err
	}
	mine := all[a.identity]
	if mine.Statements == nil {
		mine = former{Statements: map[string]*string{}, Ended: f.missingEnd()}
	}
	news := false
	for _, c := range list {
		if _, known := mine.Statements[c.name]; known {
			continue
		}
		news = true
		mine.Statements[c.name] = nil
		if s, there := f.find(c.name); there {
			text := string(f.data[s.start:s.end])
			mine.Statements[c.name] = &text
		}
	}
	if !news {
		return nil
	}
	all[a.identity] = mine
	return a.keepRecords(all)
}

func (a *thunderbirdAccount) Undo(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, err := a.records()
	if err != nil {
		return a.failed("undo", err)
	}
	mine, ok := all[a.identity]
	if !ok {
		return nil
	}
	if err := a.closed(); err != nil {
		return err
	}
	p, err := readPrefs(a.profile.dir)
	if err != nil {
		return a.failed("undo", err)
	}
	data, err := mine.restore(p.own)
	if err == nil && !bytes.Equal(data, p.own.data) {
		err = a.write(data)
	}
	if err != nil {
		return a.failed("undo", err)
	}
	delete(all, a.identity)
	if err := a.keepRecords(all); err != nil {
		return a.failed("undo", err)
	}
	return nil
}

// restore puts the former statements back.
func (r former) restore(f prefsFile) (data []byte, err error) {
	for name, statement := range r.Statements {
		if statement == nil {
			f, err = f.without(name)
		} else {
			f, err = f.with(name, []byte(*statement))
		}
		if err != nil {
			return nil, fmt.Errorf("put %s back: %w", name, err)
		}
	}
	return bytes.TrimSuffix(f.data, []byte(r.Ended)), nil
}

// dbKey names a certificate as NSS and Thunderbird do: base64 of two zero words,
// the lengths of serial number and issuer (all 4 bytes, big-endian), and both.
func dbKey(r CertificateRef) string {
	raw := make([]byte, 8, 16+len(r.Serial)+len(r.Issuer))
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(r.Serial))) //nolint:gosec // at most a certificate long
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(r.Issuer))) //nolint:gosec // at most a certificate long
	return base64.StdEncoding.EncodeToString(append(append(raw, r.Serial...), r.Issuer...))
}

// parseDBKey reads what [dbKey] writes; white space does not matter.
func parseDBKey(text string) (CertificateRef, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return CertificateRef{}, fmt.Errorf("dbKey: %w", err)
	}
	if len(raw) < 16 || !bytes.Equal(raw[:8], make([]byte, 8)) {
		return CertificateRef{}, errors.New("dbKey: no such form")
	}
	serial, issuer := uint64(binary.BigEndian.Uint32(raw[8:])), uint64(binary.BigEndian.Uint32(raw[12:]))
	if serial == 0 || issuer == 0 || 16+serial+issuer != uint64(len(raw)) {
		return CertificateRef{}, errors.New("dbKey: lengths do not fit")
	}
	return CertificateRef{Serial: raw[16 : 16+serial], Issuer: raw[16+serial:]}, nil
}
