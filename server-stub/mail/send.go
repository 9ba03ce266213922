package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"time"
)

// The ways to a mail server.
const (
	// StartTLS begins in the clear and must change to TLS before anything is sent.
	StartTLS = "starttls"
	// TLS is TLS from the first octet on.
	TLS = "tls"
	// Clear has no TLS; only for a mail server on this machine.
	Clear = "none"
)

// Server is the mail server that takes our mails.
type Server struct {
	// Address is host:port.
	Address string
	// Security is [StartTLS], [TLS] or [Clear].
	Security string
	// User and Password sign in; empty does not.
	User     string
	Password string
	// Roots judge its certificate; nil means those of the system.
	Roots *x509.CertPool
}

// Mailer hands over mails, and gives an error for each, nil for those that were taken.
type Mailer interface {
	Send(ctx context.Context, messages []Message) []error
}

// Outbox is how a server writes mails. Without a Mailer it writes none.
type Outbox struct {
	Mailer Mailer
	// From is the sender's address.
	From string
	// Administrator gets the digests; empty means nobody.
	Administrator string
}

// Sender is who writes, in the name of an organization.
func (o Outbox) Sender(organization, contact string) Sender {
	return Sender{From: o.From, Organization: organization, Contact: contact}
}

const (
	dialTime = 20 * time.Second
	// sendTime bounds a whole session.
	sendTime = 5 * time.Minute
)

// ErrClear: mail without TLS is for a mail server on the same machine only.
var ErrClear = errors.New("mail without TLS goes to a mail server on this machine only; use starttls or tls")

// Check refuses what would send mails in the clear, or does not make sense.
func (s Server) Check() error {
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return fmt.Errorf("mail server %q: %w", s.Address, err)
	}
	switch s.Security {
	case StartTLS, TLS:
		return nil
	case Clear:
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return ErrClear
		}
		return nil
	}
	return fmt.Errorf("mail security %q: use starttls, tls or none", s.Security)
}

// Send hands over messages in one session, and gives an error for each; nil for
// those that the mail server took.
func (s Server) Send(ctx context.Context, messages []Message) []error {
	ctx, done := context.WithTimeout(ctx, sendTime)
	defer done()
	results := make([]error, len(messages))
	client, err := s.open(ctx)
	if err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	for i, m := range messages {
		if results[i] = sendOne(client, m); results[i] == nil {
			continue
		}
		if err := client.Reset(); err != nil { // the session is gone
			for j := i + 1; j < len(messages); j++ {
				results[j] = fmt.Errorf("send mail: %w", err)
			}
			break
		}
	}
	_ = client.Quit() // what was taken is taken
	_ = client.Close()
	return results
}

func (s Server) open(ctx context.Context) (*smtp.Client, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTime}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: s.Roots}
	var conn net.Conn
	if s.Security == TLS {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", s.Address)
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", s.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("reach mail server: %w", err)
	}
	_ = conn.SetDeadline(time.Now().Add(sendTime)) // a connection that cannot have one is closed already
	// net/smtp knows no context: a server that stops must not wait for a mail server that hangs.
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	client, err := s.greet(conn, host, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open mail session with %s: %w", s.Address, err), conn.Close())
	}
	return client, nil
}

func (s Server) greet(conn net.Conn, host string, config *tls.Config) (*smtp.Client, error) {
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return nil, err
	}
	if s.Security == StartTLS {
		// Fails if the server does not offer it, so that nothing goes out in the clear.
		if err := client.StartTLS(config); err != nil {
			return nil, err
		}
	}
	if s.User == "" {
		return client, nil
	}
	return client, client.Auth(smtp.PlainAuth("", s.User, s.Password, host))
}

func sendOne(client *smtp.Client, m Message) error {
	data, err := m.Encode()
	if err != nil {
		return err
	}
	if err := client.Mail(m.From); err != nil {
		return fmt.Errorf("send mail: sender refused: %w", err)
	}
	if err := client.Rcpt(m.To); err != nil {
		return ofMail("send mail: recipient refused", err)
	}
	w, err := client.Data()
	if err != nil {
		return ofMail("send mail", err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("send mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return ofMail("send mail", err)
	}
	return nil
}

// answer is what the mail server said to one mail.
type answer struct {
	what  string
	reply *textproto.Error
}

func (a *answer) Error() string { return a.what + ": " + a.reply.Error() }

func (a *answer) Unwrap() error { return a.reply }

// ofMail marks what the mail server said to a mail; a session that broke says nothing of it.
func ofMail(what string, err error) error {
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		return &answer{what, reply}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Refused says that the mail server did not take this mail, but may take others:
// it said nothing against the sender, and is there.
func Refused(err error) bool {
	_, ok := errors.AsType[*answer](err)
	return ok || errors.Is(err, ErrAddress)
}

// Permanent says that the same mail would be refused again (RFC 5321, 4.2.1: a
// code of the 500s), or cannot be written at all.
func Permanent(err error) bool {
	if errors.Is(err, ErrAddress) {
		return true
	}
	said, ok := errors.AsType[*answer](err)
	return ok && said.reply.Code >= 500
}
