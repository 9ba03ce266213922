package site

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/server"
)

// estName is what policy calls the CA behind EST.
const estName = "est"

// externals makes the CAs beside the server's own.
func (c Config) externals(dir string, now func() time.Time) (map[string]server.External, error) {
	if c.EST.URL == "" {
		return map[string]server.External{}, nil
	}
	est := &authority.EST{URL: c.EST.URL, User: c.EST.User, Anchors: x509.NewCertPool(), Now: now}
	if err := est.CheckAddress(); err != nil {
		return nil, fmt.Errorf("%s: %w: est: %w", ConfigFile, ErrConfig, err)
	}
	if c.EST.Anchors == "" {
		return nil, fmt.Errorf("%s: %w: est.anchors is missing; name the PEM file of the roots of what the CA issues", ConfigFile, ErrConfig)
	}
	anchors, err := ca.ReadCertificates(within(dir, c.EST.Anchors))
	if err != nil {
		return nil, fmt.Errorf("%s: est.anchors: %w", ConfigFile, err)
	}
	out := server.External{Authority: est}
	for _, anchor := range anchors {
		est.Anchors.AddCert(anchor)
		out.Anchors = append(out.Anchors, anchor.Raw)
	}
	if c.EST.Identity != "" {
		pair, err := readSecret(dir, "est.identity", c.EST.Identity)
		if err != nil {
			return nil, err
		}
		identity, err := tls.X509KeyPair([]byte(pair), []byte(pair))
		if err != nil {
			return nil, fmt.Errorf("%s: %w: est.identity: %w", ConfigFile, ErrConfig, err)
		}
		est.Identity = &identity
	}
	if c.EST.PasswordFile != "" {
		if est.Password, err = readSecret(dir, "est.password_file", c.EST.PasswordFile); err != nil {
			return nil, err
		}
	}
	if (c.EST.User == "") != (c.EST.PasswordFile == "") {
		return nil, fmt.Errorf("%s: %w: est has one of user and password_file; write both, or neither", ConfigFile, ErrConfig)
	}
	if c.EST.CAFile != "" {
		roots, err := ca.ReadCertificates(within(dir, c.EST.CAFile))
		if err != nil {
			return nil, fmt.Errorf("%s: est.ca_file: %w", ConfigFile, err)
		}
		est.ServerRoots = x509.NewCertPool()
		for _, root := range roots {
			est.ServerRoots.AddCert(root)
		}
	}
	return map[string]server.External{estName: out}, nil
}
