// Package directory writes certificates to an LDAP directory, where mail
// programs look for those of others: OpenLDAP and its kin, or Active Directory.
// It touches no value but the server's own, and reads back what it wrote.
package directory

import (
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
	u, err := url.Parse(c.URL)
	if err != nil || !slices.Contains([]string{"ldap", "ldaps", "ldapi"}, u.Scheme) || u.Host == "" && u.Scheme != "ldapi" {
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
}

// Dial connects and binds. Nothing is bound before the connection is safe.
func (c Config) Dial(ctx context.Context) (*Session, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{RootCAs: c.Roots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	dialer := &net.Dialer{Timeout: callTime}
	if deadline, ok := ctx.Deadline(); ok {
		dialer.Deadline = deadline
	}
	conn, err := ldap.DialURL(c.dialable(u), ldap.DialWithDialer(dialer), ldap.DialWithTLSConfig(trust))
	if err != nil {
		return nil, fmt.Errorf("connect to the directory: %w", err)
	}
	conn.SetTimeout(callTime)
	if u.Scheme == "ldap" && c.Security != None {
		if err := conn.StartTLS(trust); err != nil {
			return nil, errors.Join(fmt.Errorf("make the connection to the directory safe: %w", err), conn.Close())
		}
	}
	if c.BindDN != "" {
		if err := conn.Bind(c.BindDN, c.Password); err != nil {
			return nil, errors.Join(fmt.Errorf("sign in to the directory as %s: %w", c.BindDN, err), conn.Close())
		}
	}
	return &Session{config: c, conn: conn}, nil
}

// dialable gives the library's form of a socket's URL: it wants the path as path.
func (c Config) dialable(u *url.URL) string {
	if u.Scheme != "ldapi" {
		return c.URL
	}
	path := u.Path
	if u.Host != "" { // url.Parse has decoded what stands in the host's place
		path = u.Host
	}
	return "ldapi://" + path
}

// Close ends the connection.
func (s *Session) Close() error { return s.conn.Close() }
