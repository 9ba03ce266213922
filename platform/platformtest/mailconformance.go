package platformtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"smime-agent/platform"
)

// MailWorld is a mail program with one account of Mailbox, and at least one of
// somebody else's.
type MailWorld struct {
	Program platform.MailProgram
	Mailbox string
	// Bytes reads all that the program keeps, from where it keeps it; what the
	// implementation keeps for Undo is not part of it.
	Bytes func() []byte
	// Foreign cuts out of it what is not the account's S/MIME settings. A whole
	// that is equal after Undo must be equal here at any time.
	Foreign func() []byte
	// Running starts (true) or ends what shows that the program runs; nil if this
	// program can be written beside.
	Running func(running bool)
	// Managed has other management hold the first setting that can be switched at
	// the opposite of want; nil if there is no such thing.
	Managed func(want platform.MailSettings)
}

// TestMailProgram holds an implementation to what [platform.MailAccount]
// promises. open makes a fresh world each time.
func TestMailProgram(t *testing.T, open func(t *testing.T) MailWorld) {
	t.Run("finds", func(t *testing.T) { mailFinds(t, open(t)) })
	t.Run("applies", func(t *testing.T) { mailApplies(t, open(t)) })
	t.Run("leaves what is not said", func(t *testing.T) { mailLeaves(t, open(t)) })
	t.Run("renewal", func(t *testing.T) { mailRenewal(t, open(t)) })
	t.Run("undo", func(t *testing.T) { mailUndo(t, open(t)) })
	t.Run("running", func(t *testing.T) { mailRunning(t, open(t)) })
	t.Run("managed", func(t *testing.T) { mailManaged(t, open(t)) })
}

func (w MailWorld) account(t *testing.T) platform.MailAccount {
	t.Helper()
	list, err := w.Program.Accounts(t.Context(), w.Mailbox)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d accounts of %s: %v", len(list), w.Mailbox, err)
	}
	return list[0]
}

// want is everything that the account can have set.
func (w MailWorld) want(t *testing.T, c *x509.Certificate, onOff platform.Switch) platform.MailSettings {
	t.Helper()
	ref := platform.RefTo(c)
	all := platform.MailSettings{Signing: ref, Encryption: ref, Sign: onOff, Encrypt: onOff, ClearSign: onOff, Hash: "sha-256", Cipher: "aes-256"}
	info, can := w.account(t).Info(), platform.MailSettings{}
	for _, s := range (platform.MailSettings{}).Differing(all) {
		if !slices.Contains(info.ByHand, s) && !slices.Contains(info.Fixed, s) {
			copySetting(s, all, &can)
		}
	}
	return can
}

func (w MailWorld) apply(t *testing.T, want platform.MailSettings) {
	t.Helper()
	foreign := w.Foreign()
	if _, err := w.account(t).Apply(t.Context(), want); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	w.has(t, want)
	if !bytes.Equal(foreign, w.Foreign()) {
		t.Errorf("foreign entries were\n%q\nand are\n%q", foreign, w.Foreign())
	}
}

// has reads back through a new account: what counts lies in the program.
func (w MailWorld) has(t *testing.T, want platform.MailSettings) {
	t.Helper()
	got, err := w.account(t).Settings(t.Context())
	if err != nil {
		t.Fatalf("Settings: %v", err)
	}
	if d := got.Differing(want); len(d) > 0 {
		t.Errorf("%v differ: got %+v", d, got)
	}
}

func mailFinds(t *testing.T, w MailWorld) {
	before := w.Bytes()
	info := w.account(t).Info()
	if info.ID == "" || info.Title == "" || info.Store == "" || info.Mailbox == "" || w.Program.Name() == "" {
		t.Errorf("%s: %+v", w.Program.Name(), info)
	}
	if list, err := w.Program.Accounts(t.Context(), "nobody@nowhere.example"); err != nil || len(list) != 0 {
		t.Errorf("%d accounts of nobody: %v", len(list), err)
	}
	upper := w
	upper.Mailbox = string(bytes.ToUpper([]byte(w.Mailbox)))
	if got := upper.account(t).Info().ID; got != info.ID {
		t.Errorf("account %s in other case", got)
	}
	if _, err := w.account(t).Settings(t.Context()); err != nil {
		t.Errorf("Settings of an untouched account: %v", err)
	}
	if !bytes.Equal(before, w.Bytes()) {
		t.Error("looking changed something")
	}
}

func mailApplies(t *testing.T, w MailWorld) {
	c := MailCertificate(t, w.Mailbox)
	for _, s := range []platform.Switch{platform.On, platform.Off, platform.On} {
		w.apply(t, w.want(t, c, s))
	}
	written := w.Bytes()
	if restart, err := w.account(t).Apply(t.Context(), w.want(t, c, platform.On)); err != nil || restart || !bytes.Equal(written, w.Bytes()) {
		t.Errorf("the same again: restart %v, %v", restart, err)
	}
}

func mailLeaves(t *testing.T, w MailWorld) {
	c := MailCertificate(t, w.Mailbox)
	w.apply(t, w.want(t, c, platform.On))
	only := platform.MailSettings{Signing: platform.RefTo(MailCertificate(t, w.Mailbox))}
	w.apply(t, only)
	rest := w.want(t, c, platform.On)
	rest.Signing = only.Signing
	w.has(t, rest)
}

func mailRenewal(t *testing.T, w MailWorld) {
	old, renewed := MailCertificate(t, w.Mailbox), MailCertificate(t, w.Mailbox)
	w.apply(t, w.want(t, old, platform.On))
	w.apply(t, w.want(t, renewed, platform.On))
	got, err := w.account(t).Settings(t.Context())
	if err != nil || got.Signing.Same(platform.RefTo(old)) || got.Encryption.Same(platform.RefTo(old)) {
		t.Errorf("the old certificate is still named: %+v, %v", got, err)
	}
}

// mailUndo: the exact former bytes, after several changes, and twice.
func mailUndo(t *testing.T, w MailWorld) {
	before := w.Bytes()
	if err := w.account(t).Undo(t.Context()); err != nil || !bytes.Equal(before, w.Bytes()) {
		t.Errorf("Undo of nothing: %v", err)
	}
	for range 2 {
		for _, s := range []platform.Switch{platform.On, platform.Off} {
			w.apply(t, w.want(t, MailCertificate(t, w.Mailbox), s))
		}
		if bytes.Equal(before, w.Bytes()) {
			t.Error("nothing was written")
		}
		if err := w.account(t).Undo(t.Context()); err != nil {
			t.Fatalf("Undo: %v", err)
		}
		if !bytes.Equal(before, w.Bytes()) {
			t.Errorf("before:\n%q\nafter Undo:\n%q", before, w.Bytes())
		}
	}
}

func mailRunning(t *testing.T, w MailWorld) {
	if w.Running == nil {
		t.Skip("this program can be written beside")
	}
	want := w.want(t, MailCertificate(t, w.Mailbox), platform.On)
	before := w.Bytes()
	w.Running(true)
	if _, err := w.account(t).Apply(t.Context(), want); !errors.Is(err, platform.ErrBusy) {
		t.Errorf("Apply beside the running program: %v", err)
	}
	if !bytes.Equal(before, w.Bytes()) {
		t.Error("written beside the running program")
	}
	if _, err := w.account(t).Settings(t.Context()); err != nil {
		t.Errorf("Settings beside the running program: %v", err)
	}
	w.Running(false)
	w.apply(t, want)
	written := w.Bytes()
	w.Running(true)
	if _, err := w.account(t).Apply(t.Context(), want); err != nil {
		t.Errorf("nothing to write beside the running program: %v", err)
	}
	if err := w.account(t).Undo(t.Context()); !errors.Is(err, platform.ErrBusy) || !bytes.Equal(written, w.Bytes()) {
		t.Errorf("Undo beside the running program: %v", err)
	}
	w.Running(false)
	if err := w.account(t).Undo(t.Context()); err != nil || !bytes.Equal(before, w.Bytes()) {
		t.Errorf("Undo after it: %v", err)
	}
}

func mailManaged(t *testing.T, w MailWorld) {
	if w.Managed == nil {
		t.Skip("no other management here")
	}
	want := w.want(t, MailCertificate(t, w.Mailbox), platform.On)
	w.Managed(want)
	before := w.Bytes()
	if _, err := w.account(t).Apply(t.Context(), want); !errors.Is(err, platform.ErrManaged) {
		t.Errorf("Apply against other management: %v", err)
	}
	if !bytes.Equal(before, w.Bytes()) {
		t.Error("written against other management")
	}
}

// MailCertificate is a self-signed certificate for a mailbox whose serial
// number begins with a zero octet, as half of all do.
func MailCertificate(t testing.TB, mailbox string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial.SetBit(serial, 63, 1), Subject: pkix.Name{CommonName: "Mei Lin", Organization: []string{"Müller & Söhne"}},
		EmailAddresses: []string{mailbox}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
