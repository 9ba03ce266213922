// Package directory writes certificates to an LDAP directory, where mail
// programs look for those of others: OpenLDAP and its kin, or Active Directory.
// It touches no value but the server's own, and reads back what it wrote.
package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// The flavours.
const (
	// OpenLDAP names userCertificate with ";binary" (RFC 4522, RFC 4523 §2.1).
	OpenLDAP = "openldap"
	// ActiveDirectory names it without.
	ActiveDirectory = "ad"
)

// The ways to keep what is said from others.
const (
	StartTLS = "starttls"
	None     = "none"
)

// mailboxMark is where the filter has the mailbox.
const mailboxMark = "{mailbox}"

// DefaultFilter finds a person by the address.
const DefaultFilter = "(mail=" + mailboxMark + ")"

// callTime bounds one exchange with the directory.
const callTime = 20 * time.Second

// Config is where the directory is and who writes to it.
type Config struct {
	// URL is ldaps://host[:port], ldap://host[:port] or ldapi:// with the socket's
	// path, percent-encoded.
	URL string
	// Security is for ldap:// alone: [StartTLS], or [None] on this machine.
	Security string
	// BindDN is empty for an anonymous bind, which on ldapi may be enough.
	BindDN, Password string
	Base, Filter     string
	Flavour          string
	// Roots judge the directory's TLS certificate; nil means the system's.
	Roots *x509.CertPool
}

// Check says what is wrong with the settings, and what to do.
func (c Config) Check() error {
	u, err := parse(c.URL)
	if err != nil || !slices.Contains([]string{"ldap", "ldaps", "ldapi"}, u.Scheme) || u.Host == "" && u.Scheme != "ldapi" || u.Scheme == "ldapi" && u.Path == "" {
		return fmt.Errorf("url is %q; write ldaps://HOST, ldap://HOST or ldapi://%%2Fpath%%2Fof%%2Fsocket", c.URL)
	}
	switch {
	case !slices.Contains([]string{OpenLDAP, ActiveDirectory}, c.Flavour):
		return fmt.Errorf("flavour is %q; write %q or %q", c.Flavour, OpenLDAP, ActiveDirectory)
	case c.Base == "":
		return errors.New("base is empty; write the DN below which people are, such as ou=people,dc=example,dc=com")
	case c.Password == "" && c.BindDN != "":
		return errors.New("bind_dn has no password; name the file that holds it in password_file") // a bind without one is anonymous (RFC 4513 §5.1.2)
	case !strings.Contains(c.Filter, mailboxMark):
		return fmt.Errorf("filter is %q; write one with %s in it, such as %s", c.Filter, mailboxMark, DefaultFilter)
	case !slices.Contains([]string{"", StartTLS, None}, c.Security):
		return fmt.Errorf("security is %q; write %q or %q", c.Security, StartTLS, None)
	}
	if _, err := ldap.CompileFilter(c.filterFor("a@example.com")); err != nil {
		return fmt.Errorf("filter is %q; write one as RFC 4515 has it, such as %s", c.Filter, DefaultFilter)
	}
	if u.Scheme == "ldap" && c.Security == None && !onThisMachine(u.Hostname()) {
		return fmt.Errorf("security is none, and %s is another machine; a password would cross the network in the clear: use ldaps:// or starttls", u.Hostname())
	}
	return nil
}

// parse reads the address. A socket's path may stand in the host's place, percent-encoded,
// as OpenLDAP writes it, which [url.Parse] refuses; or behind it.
func parse(address string) (*url.URL, error) {
	socket, ok := strings.CutPrefix(address, "ldapi://")
	if !ok {
		return url.Parse(address)
	}
	path, err := url.PathUnescape(socket)
	return &url.URL{Scheme: "ldapi", Path: path}, err
}

// onThisMachine takes addresses alone and the one name that every system gives
// to this machine.
func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c Config) filterFor(mailbox string) string {
	return strings.ReplaceAll(c.Filter, mailboxMark, ldap.EscapeFilter(mailbox))
}

// names are the two attributes as this flavour writes them. RFC 2798 §2.8 wants
// ";binary" with userSMIMECertificate too, but gives it the syntax Binary, for
// which OpenLDAP 2.5 refuses the option as an undefined attribute type.
func (c Config) names() (certificate, signed string) {
	certificate, signed = "userCertificate", "userSMIMECertificate"
	if c.Flavour == OpenLDAP {
		certificate += ";binary"
	}
	return certificate, signed
}

// Session is an open connection.
type Session struct {
	config Config
	conn   *ldap.Conn
	// forget has the end of the session's context break no connection any more.
	forget func() bool
}

// Dial connects and binds. Nothing is bound before the connection is safe. The end
// of ctx breaks the connection, whatever it waits for, also when it is open.
func (c Config) Dial(ctx context.Context) (*Session, error) {
	u, err := parse(c.URL)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{RootCAs: c.Roots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	raw, err := connect(ctx, u, trust)
	if err != nil {
		return nil, fmt.Errorf("connect to the directory: %w", err)
	}
	conn := ldap.NewConn(raw, u.Scheme == "ldaps")
	conn.Start()
	conn.SetTimeout(callTime)
	// The library knows no context: a server that stops must not wait for a directory that hangs.
	s := &Session{config: c, conn: conn, forget: context.AfterFunc(ctx, func() { _ = raw.Close() })}
	if u.Scheme == "ldap" && c.Security != None {
		if err := conn.StartTLS(trust); err != nil {
			return nil, errors.Join(fmt.Errorf("make the connection to the directory safe: %w", err), s.Close())
		}
	}
	if c.BindDN != "" {
		if err := conn.Bind(c.BindDN, c.Password); err != nil {
			return nil, errors.Join(fmt.Errorf("sign in to the directory as %s: %w", c.BindDN, err), s.Close())
		}
	}
	return s, nil
}

// connect opens the connection, for ldaps with TLS.
func connect(ctx context.Context, u *url.URL, trust *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var d net.Dialer
	switch u.Scheme {
	case "ldapi":
		return d.DialContext(ctx, "unix", u.Path)
	case "ldaps":
		return (&tls.Dialer{Config: trust}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ldap.DefaultLdapsPort)))
	}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ldap.DefaultLdapPort)))
}

// Close ends the connection.
func (s *Session) Close() error {
	s.forget()
	return s.conn.Close()
}
