package site

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/publish"
	"smime-agent/server-stub/server"
)

const (
	webRoot    = publish.PathRoot
	webRootCRL = publish.PathRootCRL
)

// maxWeb is how many connections of web may be open at once, unless the file says so.
const maxWeb = 1024

// Config is server.yaml.
type Config struct {
	Listen          string   `yaml:"listen"`
	Web             string   `yaml:"web"`
	AdminWeb        string   `yaml:"admin_web"`
	Metrics         string   `yaml:"metrics"`
	AuditLog        string   `yaml:"audit_log"`
	Hosts           []string `yaml:"hosts"`
	PublicURL       string   `yaml:"public_url"`
	Reserved        bool     `yaml:"reserved_policy_oid"`
	OwnPolicy       string   `yaml:"own_policy_oid"`
	OCSP            bool     `yaml:"ocsp"`
	SyncInterval    string   `yaml:"sync_interval"`
	PendingInterval string   `yaml:"pending_interval"`
	IdentityLife    string   `yaml:"identity_life"`
	IdentityGrace   string   `yaml:"identity_grace"`
	MaxCalls        int      `yaml:"max_calls"`
	MaxConnections  int      `yaml:"max_connections"`
	MaxHandshakes   int      `yaml:"max_handshakes"`
	// MaxWebConnections is how many connections of Web may be open: maxWeb.
	MaxWebConnections int     `yaml:"max_web_connections"`
	Mail              Mail    `yaml:"mail"`
	EST               EST     `yaml:"est"`
	Store             Records `yaml:"store"`
	// Directory is where certificates are published.
	Directory Directory `yaml:"directory"`
}

// EST is a CA that speaks RFC 7030; policy names it "est". Files are relative to
// the data directory.
type EST struct {
	// URL is https, with "/.well-known/est" and the CA's label, if it has one.
	URL string `yaml:"url"`
	// Anchors are the roots of what it issues; agents are told to trust them.
	Anchors string `yaml:"anchors"`
	// Identity has a certificate and its key, to sign in by TLS.
	Identity     string `yaml:"identity"`
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
	// CAFile judges its TLS certificate; empty means the system's roots.
	CAFile string `yaml:"ca_file"`
}

// Mail is how the server sends mails; without a server it sends none.
type Mail struct {
	// Server is host:port.
	Server string `yaml:"server"`
	// Security is "starttls" (default), "tls", or "none" for this machine's own mail server.
	Security string `yaml:"security"`
	From     string `yaml:"from"`
	// Administrator gets a digest of what is about to end.
	Administrator string `yaml:"administrator"`
	User          string `yaml:"user"`
	// PasswordFile and CAFile are relative to the data directory.
	PasswordFile string `yaml:"password_file"`
	CAFile       string `yaml:"ca_file"`
}

// ReadConfig reads the directory's server.yaml; unknown keys are errors.
func ReadConfig(dir string) (Config, error) {
	var c Config
	path := filepath.Join(dir, ConfigFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
		return c, unreadable(path, err)
	}
	if len(c.Hosts) == 0 || c.Listen == "" || c.Web == "" || c.PublicURL == "" {
		return c, fmt.Errorf("%s: %w: listen, web, hosts and public_url must be set", path, ErrConfig)
	}
	return c, nil
}

// ErrConfig: server.yaml says something that cannot be.
var ErrConfig = errors.New("this cannot be read")

// unreadable says the line as editors do; the YAML package's words begin with
// "[line:column] ".
func unreadable(path string, err error) error {
	text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	if line, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), ":"); ok && strings.HasPrefix(text, "[") {
		if _, after, ok := strings.Cut(rest, "] "); ok {
			path, text = path+":"+line, after
		}
	}
	return fmt.Errorf("%s: %w: %s", path, ErrConfig, text)
}

// settings reads bounds and times.
func (c Config) settings() (server.Settings, error) {
	s := server.Settings{Calls: c.MaxCalls, Connections: c.MaxConnections, Handshakes: c.MaxHandshakes}
	for _, f := range []struct {
		name, what    string
		set, standard int
	}{
		{"max_calls", "calls may be under way at once", c.MaxCalls, 4096},
		{"max_connections", "connections may be open at once", c.MaxConnections, 16384},
		{"max_handshakes", "connections may be in the TLS handshake at once", c.MaxHandshakes, 2048},
		{"max_web_connections", "connections of web may be open at once", c.MaxWebConnections, maxWeb},
	} {
		if f.set < 0 {
			return s, fmt.Errorf("%s: %w: %s is %d; write how many %s, or leave it out for %d", ConfigFile, ErrConfig, f.name, f.set, f.what, f.standard)
		}
	}
	for _, f := range []struct {
		name, text string
		to         *time.Duration
	}{
		{"sync_interval", c.SyncInterval, &s.SyncInterval},
		{"pending_interval", c.PendingInterval, &s.PendingInterval},
		{"identity_life", c.IdentityLife, &s.IdentityLife},
		{"identity_grace", c.IdentityGrace, &s.IdentityGrace},
	} {
		d, err := policy.ParseDuration(f.text)
		if err != nil || d < 0 {
			return s, fmt.Errorf("%s: %w: %s is %q; write a time such as 30d, 1h or 90s", ConfigFile, ErrConfig, f.name, f.text)
		}
		*f.to = d
	}
	return s, nil
}

// mailing makes the way to the mail server; the zero value where there is none.
func (c Config) mailing(dir string) (mail.Outbox, error) {
	m := c.Mail
	if m.Server == "" {
		return mail.Outbox{}, nil
	}
	if !bare(m.From) {
		return mail.Outbox{}, fmt.Errorf("%s: %w: mail.from is %q; write the address that mails come from, without a name", ConfigFile, ErrConfig, m.From)
	}
	if m.Administrator != "" && !bare(m.Administrator) {
		return mail.Outbox{}, fmt.Errorf("%s: %w: mail.administrator is %q; write one address without a name, or leave it out", ConfigFile, ErrConfig, m.Administrator)
	}
	to := mail.Server{Address: m.Server, Security: cmp.Or(m.Security, mail.StartTLS), User: m.User}
	if err := to.Check(); err != nil {
		return mail.Outbox{}, fmt.Errorf("%s: %w: mail: %w", ConfigFile, ErrConfig, err)
	}
	if m.PasswordFile != "" {
		var err error
		if to.Password, err = readSecret(dir, "mail.password_file", m.PasswordFile); err != nil {
			return mail.Outbox{}, err
		}
	}
	if m.CAFile != "" {
		text, err := os.ReadFile(within(dir, m.CAFile))
		if err != nil {
			return mail.Outbox{}, fmt.Errorf("%s: mail.ca_file: %w", ConfigFile, err)
		}
		to.Roots = x509.NewCertPool()
		if !to.Roots.AppendCertsFromPEM(text) {
			return mail.Outbox{}, fmt.Errorf("%s: %w: mail.ca_file: there is no certificate in %s", ConfigFile, ErrConfig, m.CAFile)
		}
	}
	return mail.Outbox{Mailer: to, From: m.From, Administrator: m.Administrator}, nil
}

// bare says that a text is one address and nothing else, as [mail.Message] wants it.
func bare(address string) bool {
	parsed, err := netmail.ParseAddress(address)
	return err == nil && parsed.Address == address && parsed.Name == ""
}

func within(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

func settingsFor(publicURL string, reserved bool, own string) ca.Settings {
	return ca.Settings{
		CRLURL: publicURL + publish.PathCRL, IssuerURL: publicURL + publish.PathCA, Reserved: reserved, OwnPolicy: own,
	}
}

// certificates says what all certificates of the CA have in common.
func (c Config) certificates() ca.Settings {
	s := settingsFor(c.PublicURL, c.Reserved, c.OwnPolicy)
	if c.OCSP {
		s.OCSPURL = c.PublicURL + publish.PathOCSP
	}
	return s
}
