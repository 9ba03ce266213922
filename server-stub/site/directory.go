package site

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/directory"
	"smime-agent/server-stub/publication"
)

// Directory is the LDAP directory that certificates are written to; without a
// URL there is none. Files are relative to the data directory.
type Directory struct {
	// URL is ldaps://host, ldap://host, or ldapi:// with the path of the socket.
	URL string `yaml:"url"`
	// Security is for ldap:// alone: "starttls" (default), or "none" on this machine.
	Security     string `yaml:"security"`
	BindDN       string `yaml:"bind_dn"`
	PasswordFile string `yaml:"password_file"`
	Base         string `yaml:"base"`
	// Filter has {mailbox} where the address goes; "(mail={mailbox})" if empty.
	Filter string `yaml:"filter"`
	// Flavour is "openldap" (default) or "ad".
	Flavour string `yaml:"flavour"`
	// CAFile judges its TLS certificate; empty means the system's roots.
	CAFile string `yaml:"ca_file"`
}

// opening gives the way to the directory; nil where there is none.
func (d Directory) opening(dir string) (func(context.Context) (publication.Session, error), error) {
	if d.URL == "" {
		return nil, nil
	}
	c := directory.Config{
		URL: d.URL, Security: cmp.Or(d.Security, directory.StartTLS), BindDN: d.BindDN, Base: d.Base,
		Filter: cmp.Or(d.Filter, directory.DefaultFilter), Flavour: cmp.Or(d.Flavour, directory.OpenLDAP),
	}
	if d.PasswordFile != "" {
		var err error
		if c.Password, err = readSecret(dir, "directory.password_file", d.PasswordFile); err != nil {
			return nil, err
		}
	}
	if d.CAFile != "" {
		roots, err := ca.ReadCertificates(within(dir, d.CAFile))
		if err != nil {
			return nil, fmt.Errorf("%s: directory.ca_file: %w", ConfigFile, err)
		}
		c.Roots = x509.NewCertPool()
		for _, root := range roots {
			c.Roots.AddCert(root)
		}
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w: directory: %w", ConfigFile, ErrConfig, err)
	}
	return func(ctx context.Context) (publication.Session, error) {
		s, err := c.Dial(ctx)
		if err != nil {
			return nil, err
		}
		return s, nil
	}, nil
}
