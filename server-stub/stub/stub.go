// Package stub runs the reference server inside a test: a temporary directory,
// a free port, a clock of the test's, and faults on request.
package stub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/site"
)

// The organization of every stub.
const (
	Organization   = "Example GmbH"
	OrganizationID = "NTRDE-DER3306.HRB12345"
	Country        = "DE"
)

// Options are what a test chooses. The zero value is a server with Alice in its policy.
type Options struct {
	// Dir is used again if it holds a server; empty means a temporary one, which Close removes.
	Dir string
	// PolicyYAML and PeopleCSV stand for the first policy.
	PolicyYAML string
	PeopleCSV  string
	Settings   server.Settings
	Now        func() time.Time
	Log        *slog.Logger
	// Fault may refuse a call before it is handled, AfterFault lose its answer
	// afterwards. Both get the method's bare name, such as "Submit". A gRPC status
	// error goes out as it is, any other as Unavailable.
	Fault      func(method string) error
	AfterFault func(method string) error
	// Addr is where to listen; empty means a free port of the loopback.
	Addr string
	// RSA makes the S/MIME CAs RSA.
	RSA bool
	// AdminWeb is where the administrators' page listens; empty means nowhere.
	AdminWeb string
	// Externals are CAs beside the server's own, by the names that policy uses.
	Externals map[string]server.External
	// Postgres is the database for the records, without a password; empty means a file.
	Postgres string
	// Mail is how the server writes mails; none without a Mailer.
	Mail mail.Outbox
}

// Server is a running stub.
type Server struct {
	*site.Site
	// Dir holds its files.
	Dir string
	// CAPEM is the transport CA, for whoever dials; Pin is its pin.
	CAPEM []byte
	Pin   string
	// Anchor is the S/MIME root.
	Anchor *x509.Certificate
	// Admin calls as an administrator.
	Admin controlv1.AdminServiceClient

	conn      *grpc.ClientConn
	temporary bool
}

// Start founds a server, or opens the one in Dir, and serves.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{Dir: o.Dir}
	if s.Dir == "" {
		if s.Dir, err = os.MkdirTemp("", "server-stub-"); err != nil {
			return nil, err
		}
		s.temporary = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	main, web, err := listeners(ctx, o.Addr)
	if err != nil {
		return nil, err
	}
	if err := found(s.Dir, o, "http://"+web.Addr().String()); err != nil {
		return nil, errors.Join(err, main.Close(), web.Close())
	}
	s.Site, err = site.Open(ctx, s.Dir, site.Options{
		Listener: main, WebListener: web, Now: o.Now, Log: o.Log, Fault: o.Fault, AfterFault: o.AfterFault,
		Settings: o.Settings, Mail: o.Mail, Externals: o.Externals,
	})
	if err != nil {
		return nil, errors.Join(err, main.Close(), web.Close())
	}
	return s, s.connect()
}

func listeners(ctx context.Context, addr string) (main, web net.Listener, err error) {
	const free = "127.0.0.1:0"
	if addr == "" {
		addr = free
	}
	var lc net.ListenConfig
	if main, err = lc.Listen(ctx, "tcp", addr); err != nil {
		return nil, nil, err
	}
	if web, err = lc.Listen(ctx, "tcp", free); err != nil {
		return nil, nil, errors.Join(err, main.Close())
	}
	return main, web, nil
}

func found(dir string, o Options, publicURL string) error {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	err := site.Found(site.Founding{
		Dir: dir, Organization: Organization, Country: Country, OrganizationID: OrganizationID,
		Hosts: []string{"127.0.0.1", "localhost"}, Listen: "127.0.0.1:0", Web: "127.0.0.1:0",
		PublicURL: publicURL, AdminWeb: o.AdminWeb, Postgres: o.Postgres, RSA: o.RSA, Now: now(),
	})
	if errors.Is(err, site.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, text := range map[string]string{site.PolicyFile: o.PolicyYAML, site.PeopleFile: o.PeopleCSV} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) connect() error {
	s.CAPEM = ca.EncodeCertificates(s.Transport.Cert)
	s.Pin = s.Transport.Pin()
	anchors, err := ca.ReadCertificates(filepath.Join(s.Dir, site.RootCert))
	if err != nil {
		return err
	}
	s.Anchor = anchors[0]
	path := filepath.Join(s.Dir, site.AdminIdentity)
	identity, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return err
	}
	if s.conn, err = s.Dial(&identity); err != nil {
		return err
	}
	s.Admin = controlv1.NewAdminServiceClient(s.conn)
	return nil
}

// Dial connects with a client certificate, or without one if identity is nil.
func (s *Server) Dial(identity *tls.Certificate) (*grpc.ClientConn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.Transport.Roots()}
	if identity != nil {
		config.Certificates = []tls.Certificate{*identity}
	}
	return grpc.NewClient(s.Addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// Token makes a join token.
func (s *Server) Token(ctx context.Context, req *controlv1.CreateTokenRequest) (string, error) {
	resp, err := s.Admin.CreateToken(ctx, req)
	if err != nil {
		return "", fmt.Errorf("create token: %w", err)
	}
	return resp.GetToken(), nil
}

// Close ends the server and removes a temporary directory. Closing twice is no error.
func (s *Server) Close() error {
	var err error
	if s.conn != nil {
		err = s.conn.Close()
		s.conn = nil
	}
	if s.Site != nil {
		err = errors.Join(err, s.Site.Close())
	}
	if s.temporary {
		err = errors.Join(err, os.RemoveAll(s.Dir))
	}
	return err
}
