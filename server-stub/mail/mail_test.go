package mail_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/mailtest"
)

func certificate() mail.Certificate {
	return mail.Certificate{
		Name: "王小明", Mailbox: "wang@example.com", Serial: "4199aa", Type: "employee-dual", Days: 30, Host: "pc-17", Account: "wang",
		Ends: time.Date(2026, 12, 24, 9, 0, 0, 0, time.UTC), Problem: "store-locked",
	}
}

func sender() mail.Sender {
	return mail.Sender{From: "pki@example.com", Organization: "Beispiel & Söhne GmbH", Contact: "helpdesk@example.com"}
}

func startMail(t *testing.T) *mailtest.Server {
	t.Helper()
	s, err := mailtest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestReminderArrives sends reminders in both orders of languages through a real SMTP server.
func TestReminderArrives(t *testing.T) {
	s := startMail(t)
	for locale, first := range map[string]string{"zh-CN": "王小明，您好", "de-DE": "Hello 王小明", "": "Hello"} {
		m, err := mail.Reminder(sender(), certificate(), locale, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(mail.Server{Address: s.Addr, Security: mail.Clear}.Send(t.Context(), []mail.Message{m})...); err != nil {
			t.Fatal(err)
		}
		got := s.Mails()
		if len(got) != 1 || got[0].To != "wang@example.com" || got[0].From != "pki@example.com" {
			t.Fatalf("received %+v", got)
		}
		for _, want := range []string{"2026-12-24", "wang@example.com", "pc-17", "4199aa", "helpdesk@example.com", "Hello 王小明", "王小明，您好"} {
			if !strings.Contains(got[0].Text, want) {
				t.Errorf("%s: the text lacks %q:\n%s", locale, want, got[0].Text)
			}
		}
		if !strings.HasPrefix(got[0].Text, first) {
			t.Errorf("%s: the text begins otherwise than %q:\n%s", locale, first, got[0].Text)
		}
		if !strings.Contains(got[0].Subject, "ends in 30 days") || !strings.Contains(got[0].Subject, "30 天后到期") {
			t.Errorf("subject %q", got[0].Subject)
		}
		from, err := got[0].Header.AddressList("From")
		if err != nil || from[0].Name != "Beispiel & Söhne GmbH" || got[0].Header.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("from %v, %v", from, err)
		}
	}
}

func TestDigest(t *testing.T) {
	s := startMail(t)
	list := make([]mail.Certificate, 502)
	for i := range list {
		list[i] = certificate()
	}
	m, err := mail.Digest(sender(), "admin@example.com", "digest.1", list, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(mail.Server{Address: s.Addr, Security: mail.Clear}.Send(t.Context(), []mail.Message{m})...); err != nil {
		t.Fatal(err)
	}
	got := s.Mails()[0]
	if !strings.Contains(got.Subject, "502 certificates") || !strings.Contains(got.Text, "and 2 more") || !strings.Contains(got.Text, "store-locked") || !strings.Contains(got.Text, "另有 2 个") {
		t.Errorf("digest %q\n%.400s", got.Subject, got.Text)
	}
}

// TestHeadersCannotBeInjected plants line breaks wherever text of others goes.
func TestHeadersCannotBeInjected(t *testing.T) {
	bad := certificate()
	bad.Name, bad.Host = "Eve\r\nBcc: all@example.com", "pc\n.\nMAIL FROM:<x@y.z>"
	s := sender()
	s.Organization = "X\r\nBcc: all@example.com"
	m, err := mail.Reminder(s, bad, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.Subject += "\r\nBcc: all@example.com"
	m.ID = "a>\r\nBcc: all@example.com"
	server := startMail(t)
	if err := errors.Join(mail.Server{Address: server.Addr, Security: mail.Clear}.Send(t.Context(), []mail.Message{m})...); err != nil {
		t.Fatal(err)
	}
	got := server.Mails()
	if len(got) != 1 || got[0].Header.Get("Bcc") != "" {
		t.Fatalf("received %+v", got)
	}
	for _, address := range []string{"", "a", "a@b.c\r\nRCPT TO:<x@y.z>", "A <a@b.c>", "a@b.c, d@e.f"} {
		m.To = address
		if _, err := m.Encode(); !errors.Is(err, mail.ErrAddress) || !mail.Permanent(err) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestOneRefusalLeavesTheOthers sends three mails of which the second is refused.
func TestOneRefusalLeavesTheOthers(t *testing.T) {
	s := startMail(t)
	s.Refuse("b@example.com", 550)
	s.Refuse("c@example.com", 451)
	var list []mail.Message
	for _, to := range []string{"a@example.com", "b@example.com", "c@example.com", "d@example.com"} {
		list = append(list, mail.Message{To: to, From: "pki@example.com", Subject: "x", Text: ".\n..\nx\n", Date: time.Now()})
	}
	results := mail.Server{Address: s.Addr, Security: mail.Clear}.Send(t.Context(), list)
	if results[0] != nil || !mail.Permanent(results[1]) || results[2] == nil || mail.Permanent(results[2]) || results[3] != nil {
		t.Errorf("results %v", results)
	}
	if got := s.Mails(); len(got) != 2 || got[1].To != "d@example.com" || got[0].Text != ".\n..\nx\n" {
		t.Errorf("received %+v", got)
	}
}

// TestRefusedSession: what the mail server has against this server, be it in words
// as final as those against a recipient, is not said of the mails.
func TestRefusedSession(t *testing.T) {
	message := []mail.Message{{To: "a@example.com", From: "pki@example.com", Subject: "x", Text: "x", Date: time.Now()}}
	s := startMail(t)
	s.Refuse("pki@example.com", 550)
	if err := (mail.Server{Address: s.Addr, Security: mail.Clear}).Send(t.Context(), message)[0]; err == nil || mail.Refused(err) || mail.Permanent(err) {
		t.Errorf("a sender that is refused: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = conn.Write([]byte("554 no mail from here\r\n"))
			_ = conn.Close()
		}
	}()
	err = mail.Server{Address: l.Addr().String(), Security: mail.Clear}.Send(t.Context(), message)[0]
	if err == nil || !strings.Contains(err.Error(), "554") || mail.Refused(err) || mail.Permanent(err) {
		t.Errorf("a server that greets with 554: %v", err)
	}
}

// TestHangingServer ends a session with a mail server that says nothing.
func TestHangingServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	message := []mail.Message{{To: "a@example.com", From: "pki@example.com", Text: "x", Date: time.Now()}}
	err = mail.Server{Address: l.Addr().String(), Security: mail.Clear}.Send(ctx, message)[0]
	if err == nil || mail.Permanent(err) || time.Since(begin) > time.Minute {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestTLS demands TLS of the mail server: one that has none, or a certificate of
// somebody else, gets no mail.
func TestTLS(t *testing.T) {
	if err := (mail.Server{Address: "mail.example.com:25", Security: mail.Clear}).Check(); !errors.Is(err, mail.ErrClear) {
		t.Errorf("mail in the clear to another machine: %v", err)
	}
	if err := (mail.Server{Address: "127.0.0.1:25", Security: "maybe"}).Check(); err == nil {
		t.Error("an unknown security is taken")
	}
	plain := startMail(t)
	message := []mail.Message{{To: "a@example.com", From: "pki@example.com", Text: "x", Date: time.Now()}}
	if err := (mail.Server{Address: plain.Addr, Security: mail.StartTLS}).Send(t.Context(), message)[0]; err == nil || len(plain.Mails()) != 0 {
		t.Errorf("a server without STARTTLS gets the mail: %v", err)
	}
	pair, roots := serverPair(t)
	received := make(chan string, 8)
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		_, secured := c.TLSConnectionState()
		return &counting{secured: secured, received: received}, nil
	}))
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	good := mail.Server{Address: l.Addr().String(), Security: mail.StartTLS, Roots: roots}
	if err := good.Send(t.Context(), message)[0]; err != nil {
		t.Fatal(err)
	}
	if how := <-received; how != "secured" {
		t.Errorf("received %s", how)
	}
	if err := (mail.Server{Address: l.Addr().String(), Security: mail.StartTLS, Roots: x509.NewCertPool()}).Send(t.Context(), message)[0]; err == nil {
		t.Error("a server with a certificate of somebody else gets the mail")
	}
}

type counting struct {
	secured  bool
	received chan string
}

func (c *counting) Reset()                               {}
func (c *counting) Logout() error                        { return nil }
func (c *counting) Mail(string, *smtp.MailOptions) error { return nil }
func (c *counting) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (c *counting) Data(r io.Reader) error {
	how := "clear"
	if c.secured {
		how = "secured"
	}
	c.received <- how
	_, err := io.Copy(io.Discard, r)
	return err
}

func serverPair(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
