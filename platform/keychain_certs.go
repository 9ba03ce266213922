package platform

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/platform/internal/security"
)

// Install files the issuers first and the leaf last, so that whoever sees the
// leaf finds its chain; then the system must find the leaf's key, and mail
// programs are told to prefer the newest certificate of each address.
func (s *keychainStore) Install(ctx context.Context, id KeyID, chain []*x509.Certificate) error {
	return s.use(ctx, "install certificate for key "+string(id), func(k keychain) error {
		p, _, err := theOne(k, id)
		if err != nil {
			return err
		}
		if err := checkLeaf(p.public, chain); err != nil {
			return err
		}
		for _, c := range slices.Backward(chain) {
			if err := k.AddCertificate(c.Raw); err != nil {
				return fmt.Errorf("add %q: %w", c.Subject.CommonName, err)
			}
		}
		if err := k.CheckIdentity(chain[0].Raw); err != nil {
			// "Not found" would be said of the key, which is there.
			return fmt.Errorf("the system does not put the certificate and its key together: %v", err) //nolint:errorlint // see above
		}
		return preferNewest(k, chain[0])
	})
}

// preferNewest sets the preference for each address of the leaf. An old chain
// that is installed again must not push a newer certificate aside.
func preferNewest(k keychain, leaf *x509.Certificate) error {
	pairs, _, err := pairsOf(k, "")
	if err != nil {
		return err
	}
	rivals := []*x509.Certificate{leaf}
	for _, p := range pairs {
		rivals = append(rivals, p.certs...)
	}
	rivals = slices.DeleteFunc(rivals, func(c *x509.Certificate) bool { return useOf(c) != useOf(leaf) })
	for _, address := range spellings(leaf.EmailAddresses) {
		best := slices.MaxFunc(slices.DeleteFunc(slices.Clone(rivals), func(c *x509.Certificate) bool {
			return !slices.ContainsFunc(c.EmailAddresses, func(a string) bool { return strings.EqualFold(a, address) })
		}), newer)
		if err := k.Prefer(best.Raw, address, useOf(leaf)); err != nil {
			return fmt.Errorf("prefer the certificate for %s: %w", address, err)
		}
	}
	return nil
}

// useOf: a certificate that can sign serves for everything that no other serves.
func useOf(c *x509.Certificate) security.Use {
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return security.ForEncryption
	}
	return security.ForSigning
}

// spellings are the addresses as they are written and in lower case: names of
// preferences are compared letter by letter (SecIdentity.cpp), and a mail
// program asks for the spelling of its own account.
func spellings(addresses []string) []string {
	var all []string
	for _, a := range addresses {
		for _, s := range []string{a, strings.ToLower(a)} {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

func (s *keychainStore) Find(ctx context.Context, id KeyID) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	err := s.use(ctx, "find certificate for key "+string(id), func(k keychain) error {
		p, certs, err := theOne(k, id)
		if err != nil {
			return err
		}
		leaf, ok := newestFor(p.public, p.certs)
		if !ok {
			return ErrNotFound
		}
		chain = chainOf(leaf, certs)
		return nil
	})
	return chain, err
}

// Remove takes the certificate away by reference, never an identity: that would
// take the keys away, too (SecItem.cpp, _DeleteIdentity).
func (s *keychainStore) Remove(ctx context.Context, cert *x509.Certificate) error {
	return s.use(ctx, "remove certificate", func(k keychain) error {
		err := k.RemoveCertificate(cert.Raw)
		if errors.Is(err, security.ItemNotFound) {
			return nil // somebody else was faster
		}
		return err
	})
}
