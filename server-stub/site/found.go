// Package site is a reference server's data directory: it founds one, with
// everything a pilot needs, and opens one to serve from it.
package site

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"smime-agent/server-stub/ca"
)

// The files of a data directory.
const (
	ConfigFile     = "server.yaml"
	PolicyFile     = "policy.yaml"
	PeopleFile     = "people.csv"
	RecordsFile    = "records.db"
	RootCert       = "ca/root.crt"
	RootKey        = "ca/root.key"
	RootList       = "ca/root.crl"
	IssuingCert    = "ca/issuing.crt"
	IssuingKey     = "ca/issuing.key"
	TransportCert  = "transport/ca.crt"
	TransportKey   = "transport/ca.key"
	ServerKey      = "transport/server.key"
	AdminIdentity  = "admin/admin.pem"
	folderMode     = 0o700
	adminLife      = 365 * 24 * time.Hour
	adminName      = "first"
	defaultListen  = ":8443"
	defaultWeb     = ":8080"
	exampleAccount = "alice"
)

// Founded are the files that a server cannot be without and that nothing makes
// again, relative to the data directory.
func Founded() []string {
	return []string{RootCert, RootList, IssuingCert, IssuingKey, TransportCert, TransportKey, ServerKey}
}

// ErrExists: the directory already holds a server.
var ErrExists = errors.New("there is a server already")

// Founding is what a new server is told.
type Founding struct {
	Dir            string
	Organization   string
	Country        string
	OrganizationID string
	// Hosts are the names and addresses under which agents reach the server.
	Hosts []string
	// Listen is for agents and administrators, Web for revocation lists; empty
	// means :8443 and :8080.
	Listen string
	Web    string
	// AdminWeb is for the administrators' web page; empty means none.
	AdminWeb string
	// PublicURL begins the URLs in certificates; empty means http with the first host and Web's port.
	PublicURL string
	// OwnPolicy is the company's own policy OID; with it the reserved one is left out.
	OwnPolicy string
	// Postgres is the database for the records, without a password; empty means a file.
	// PasswordFile is relative to Dir.
	Postgres     string
	PasswordFile string
	// RSA makes the S/MIME CAs RSA.
	RSA bool
	// Command is how administrators call this program: "server-stub".
	Command string
	Now     time.Time
}

func (f *Founding) complete() error {
	if f.Organization == "" || len(f.Country) != 2 || f.OrganizationID == "" {
		return errors.New("organization, country (two letters) and organization identifier are needed")
	}
	f.Command = cmp.Or(f.Command, program)
	f.Listen = cmp.Or(f.Listen, defaultListen)
	f.Web = cmp.Or(f.Web, defaultWeb)
	if len(f.Hosts) == 0 {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find out this machine's name: %w", err)
		}
		f.Hosts = []string{host, "localhost", "127.0.0.1"}
	}
	if f.PublicURL == "" {
		_, port, err := net.SplitHostPort(f.Web)
		if err != nil {
			return fmt.Errorf("web address %q: %w", f.Web, err)
		}
		f.PublicURL = "http://" + net.JoinHostPort(f.Hosts[0], port)
	}
	if !strings.HasPrefix(f.PublicURL, "http://") {
		return fmt.Errorf("public URL %q: certificates must name plain http (S/MIME BR 7.1.2.3)", f.PublicURL)
	}
	return nil
}

// Found makes a data directory. It refuses one that holds anything, with
// [ErrExists], and takes away what it made if it does not get to the end.
func Found(f Founding) (err error) {
	if err := f.complete(); err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, folderMode); err != nil {
		return err
	}
	if entries, err := os.ReadDir(f.Dir); err != nil || len(entries) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty: %w", f.Dir, ErrExists))
	}
	for _, folder := range []string{"ca", "transport", "admin"} {
		if err := os.Mkdir(filepath.Join(f.Dir, folder), folderMode); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clean(f.Dir))
		}
	}()
	if err := f.smime(); err != nil {
		return err
	}
	if err := f.transport(); err != nil {
		return err
	}
	return f.texts()
}

// clean empties the directory that was empty when founding began.
func clean(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, entry := range entries {
		err = errors.Join(err, root.RemoveAll(entry.Name()))
	}
	return errors.Join(err, root.Close())
}

func (f *Founding) path(name string) string { return filepath.Join(f.Dir, filepath.FromSlash(name)) }

func (f *Founding) smime() error {
	settings := settingsFor(f.PublicURL, f.OwnPolicy == "", f.OwnPolicy)
	hierarchy, err := ca.Found(ca.Founding{
		Organization: f.Organization, Country: f.Country, Settings: settings, RSA: f.RSA, Now: f.Now,
		RootCRLURL: f.PublicURL + webRootCRL, RootURL: f.PublicURL + webRoot,
	})
	if err != nil {
		return err
	}
	return errors.Join(
		ca.WriteCertificates(f.path(RootCert), hierarchy.Root.Cert),
		ca.WriteKey(f.path(RootKey), hierarchy.Root.Key),
		ca.WriteFile(f.path(RootList), hierarchy.RootCRL),
		ca.WriteCertificates(f.path(IssuingCert), hierarchy.Issuing.Cert),
		ca.WriteKey(f.path(IssuingKey), hierarchy.Issuing.Key),
	)
}

func (f *Founding) transport() error {
	transport, err := ca.FoundTransport(f.Organization, f.Now)
	if err != nil {
		return err
	}
	serverKey, err := ca.NewP256()
	if err != nil {
		return err
	}
	adminKey, err := ca.NewP256()
	if err != nil {
		return err
	}
	admin, err := transport.IssueIdentity(ca.AdminRole, adminName, adminKey.Public(), f.Now, adminLife)
	if err != nil {
		return err
	}
	return errors.Join(
		ca.WriteCertificates(f.path(TransportCert), transport.Cert),
		ca.WriteKey(f.path(TransportKey), transport.Key),
		ca.WriteKey(f.path(ServerKey), serverKey),
		ca.WriteIdentity(f.path(AdminIdentity), ca.Pair{Cert: admin, Key: adminKey}),
	)
}

// texts writes the files that people edit.
func (f *Founding) texts() error {
	for name, text := range map[string]string{ConfigFile: configText, PolicyFile: policyText, PeopleFile: peopleText} {
		var out bytes.Buffer
		if err := template.Must(template.New(name).Parse(text)).Execute(&out, f); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := ca.WriteFile(f.path(name), out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// CreateAdmin signs another administrator's certificate, in a new file.
func CreateAdmin(dir, name, file string, now time.Time) error {
	certs, key, err := ca.ReadPair(filepath.Join(dir, TransportCert), filepath.Join(dir, TransportKey))
	if err != nil {
		return err
	}
	transport := ca.NewTransport(ca.Pair{Cert: certs[0], Key: key})
	adminKey, err := ca.NewP256()
	if err != nil {
		return err
	}
	cert, err := transport.IssueIdentity(ca.AdminRole, name, adminKey.Public(), now, adminLife)
	if err != nil {
		return err
	}
	return ca.WriteIdentity(file, ca.Pair{Cert: cert, Key: adminKey})
}

// chain reads the issuing CA with the root behind it.
func chain(dir string) ([]*x509.Certificate, error) {
	issuing, err := ca.ReadCertificates(filepath.Join(dir, IssuingCert))
	if err != nil {
		return nil, err
	}
	root, err := ca.ReadCertificates(filepath.Join(dir, RootCert))
	if err != nil {
		return nil, err
	}
	return append(issuing[:1:1], root[0]), nil
}
