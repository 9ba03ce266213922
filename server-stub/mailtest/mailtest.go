// Package mailtest is a real SMTP server on the loopback for tests: it keeps
// what it received, parsed by the standard library and not by our own code.
package mailtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Mail is one message as it was received.
type Mail struct {
	// From and To are those of the envelope.
	From, To string
	Header   netmail.Header
	// Subject and Text are decoded.
	Subject string
	Text    string
}

// Server is the SMTP server.
type Server struct {
	// Addr is where it listens.
	Addr string

	smtp    *smtp.Server
	mu      sync.Mutex
	mails   []Mail
	refuse  map[string]int
	refused int
	// user and password have to be given where there are any.
	user, password string
}

// Start listens on a free port of the loopback. The caller closes it.
func Start(ctx context.Context) (*Server, error) {
	s := &Server{refuse: map[string]int{}}
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{server: s}, nil }))
	s.smtp.AllowInsecureAuth = true // on the loopback
	s.smtp.Domain, s.smtp.ReadTimeout, s.smtp.WriteTimeout = "localhost", 10*time.Second, 10*time.Second
	s.smtp.ErrorLog = log.New(io.Discard, "", 0)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.Addr = l.Addr().String()
	go func() { _ = s.smtp.Serve(l) }()
	return s, nil
}

// Close ends the server.
func (s *Server) Close() error { return s.smtp.Close() }

// Refuse has the server answer mails to or from an address with this code; 0 takes them again.
func (s *Server) Refuse(address string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[address] = code
}

// Demand has the server take mails only of who signs in so (AUTH PLAIN).
func (s *Server) Demand(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user, s.password = user, password
}

// Mails gives what was received so far, and forgets it.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.mails
	s.mails = nil
	return out
}

// Refused counts the mails that were refused.
func (s *Server) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

type session struct {
	server   *Server
	from, to string
	signedIn bool
}

// AuthMechanisms and Auth make it a [smtp.AuthSession].
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		if user != s.server.user || password != s.server.password {
			return smtp.ErrAuthFailed
		}
		s.signedIn = true
		return nil
	}), nil
}

func (s *session) Reset()        { s.from, s.to = "", "" }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	if s.server.demands() && !s.signedIn {
		return smtp.ErrAuthRequired
	}
	return s.server.judge(from)
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return s.server.judge(to)
}

func (s *Server) demands() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user != ""
}

func (s *Server) judge(address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	code := s.refuse[address]
	if code == 0 {
		return nil
	}
	s.refused++
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "refused by the test"}
}

func (s *session) Data(r io.Reader) error {
	m, err := parse(r)
	if err != nil {
		return fmt.Errorf("a mail that cannot be parsed: %w", err)
	}
	m.From, m.To = s.from, s.to
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, m)
	return nil
}

func parse(r io.Reader) (Mail, error) {
	message, err := netmail.ReadMessage(r)
	if err != nil {
		return Mail{}, err
	}
	kind, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil || kind != "text/plain" || parameters["charset"] != "utf-8" {
		return Mail{}, errors.Join(err, fmt.Errorf("content type %q", message.Header.Get("Content-Type")))
	}
	if encoding := message.Header.Get("Content-Transfer-Encoding"); encoding != "quoted-printable" {
		return Mail{}, fmt.Errorf("transfer encoding %q", encoding)
	}
	if _, err := message.Header.Date(); err != nil {
		return Mail{}, err
	}
	text, err := io.ReadAll(quotedprintable.NewReader(message.Body))
	if err != nil {
		return Mail{}, err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject"))
	return Mail{Header: message.Header, Subject: subject, Text: strings.ReplaceAll(string(text), "\r\n", "\n")}, err
}
