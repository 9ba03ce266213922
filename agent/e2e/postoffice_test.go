//go:build linux

package e2e_test

import (
	"bytes"
	"io"
	"log"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-smtp"
)

// postOffice takes what a mail program sends, as it came, and has an inbox.
type postOffice struct {
	smtpPort, imapPort string
	inbox              *imapmemserver.User
	mu                 sync.Mutex
	sent               [][]byte
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	o := &postOffice{inbox: imapmemserver.NewUser("alice", "secret")}
	if err := o.inbox.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	out := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return counter{o}, nil }))
	out.Domain, out.ErrorLog = "localhost", log.New(io.Discard, "", 0)
	users := imapmemserver.New()
	users.AddUser(o.inbox)
	in := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return users.NewSession(), nil, nil
		},
		Caps: imap.CapSet{imap.CapIMAP4rev1: {}}, InsecureAuth: true, Logger: log.New(io.Discard, "", 0),
	})
	o.smtpPort = listen(t, out.Serve)
	o.imapPort = listen(t, in.Serve)
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	return o
}

func listen(t *testing.T, serve func(net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = serve(l) }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// deliver puts a message into the inbox.
func (o *postOffice) deliver(t *testing.T, message []byte) {
	t.Helper()
	if _, err := o.inbox.Append("INBOX", literal{bytes.NewReader(message), int64(len(message))}, &imap.AppendOptions{Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

type literal struct {
	io.Reader
	size int64
}

func (l literal) Size() int64 { return l.size }

// last is the message that was sent last, and how many there were.
func (o *postOffice) last() ([]byte, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sent) == 0 {
		return nil, 0
	}
	return o.sent[len(o.sent)-1], len(o.sent)
}

// counter is one SMTP session.
type counter struct{ office *postOffice }

func (counter) Reset()                               {}
func (counter) Logout() error                        { return nil }
func (counter) Mail(string, *smtp.MailOptions) error { return nil }
func (counter) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (c counter) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	c.office.mu.Lock()
	defer c.office.mu.Unlock()
	c.office.sent = append(c.office.sent, data)
	return err
}
