package platform

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"smime-agent/platform/internal/wincrypt"
)

// filed lists one of the user's certificate stores.
func filed(store string) (list []wincrypt.Filed, err error) {
	err = withCerts(store, func(s *wincrypt.CertStore) error {
		list, err = s.List()
		return err
	})
	return list, err
}

// withCerts opens a store for the time of fn; what fn changed is written after it.
func withCerts(store string, fn func(*wincrypt.CertStore) error) error {
	s, err := wincrypt.OpenCertStore(store)
	if err != nil {
		return err
	}
	return errors.Join(fn(s), s.Close())
}

// certifies says that a certificate names the key as its own, or is for it.
// What cannot be parsed is for nobody, but may still name a key.
func certifies(list []wincrypt.Filed, id KeyID, public crypto.PublicKey) bool {
	for _, f := range list {
		if strings.EqualFold(f.Key.Container, string(id)) {
			return true
		}
		if c, err := x509.ParseCertificate(f.DER); err == nil && samePublic(public, c.PublicKey) {
			return true
		}
	}
	return false
}

// parsed gives the certificates among the entries, the archived or the others.
// Windows lets anything lie in a store that looks like a certificate to it;
// what crypto/x509 refuses is left out and stops nothing.
func parsed(list []wincrypt.Filed, archived bool) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, f := range list {
		if f.Archived != archived {
			continue
		}
		if c, err := x509.ParseCertificate(f.DER); err == nil {
			certs = append(certs, c)
		}
	}
	return certs
}

// Install files the issuers, then the leaf with the place of its key, and looks
// through stores opened afresh whether all of it is there and leads to the key.
// The root goes beside the other issuers, where it is not trusted by that.
func (s *windowsStore) Install(_ context.Context, id KeyID, chain []*x509.Certificate) error {
	return s.wrap(s.install(id, chain), "install certificate for key", id)
}

func (s *windowsStore) install(id KeyID, chain []*x509.Certificate) error {
	l, err := s.find(id)
	if err != nil {
		return err
	}
	if err := checkLeaf(l.public, chain); err != nil {
		return err
	}
	err = withCerts(wincrypt.CA, func(cs *wincrypt.CertStore) error {
		var failed []error
		for _, c := range chain[1:] {
			failed = append(failed, cs.AddIssuer(c.Raw))
		}
		return errors.Join(failed...)
	})
	if err != nil {
		return fmt.Errorf("file issuers: %w", err)
	}
	if err := fileLeaf(chain[0], l.location); err != nil {
		return fmt.Errorf("file leaf: %w", err)
	}
	return readBackLeaf(chain, l.location)
}

// fileLeaf leaves a certificate alone that is there and has its key: what a
// person or another program noted on it stays.
func fileLeaf(leaf *x509.Certificate, key wincrypt.KeyLocation) error {
	mine, err := filed(wincrypt.My)
	if err != nil {
		return err
	}
	if f, ok := entryOf(mine, leaf); ok && f.Key == key && !f.Archived {
		return nil
	}
	return withCerts(wincrypt.My, func(cs *wincrypt.CertStore) error {
		return cs.Add(leaf.Raw, key, friendlyName(leaf))
	})
}

func entryOf(list []wincrypt.Filed, c *x509.Certificate) (wincrypt.Filed, bool) {
	for _, f := range list {
		if bytes.Equal(f.DER, c.Raw) {
			return f, true
		}
	}
	return wincrypt.Filed{}, false
}

// friendlyName is what Outlook and certmgr show; the year tells generations apart.
func friendlyName(leaf *x509.Certificate) string {
	who := leaf.Subject.CommonName
	if len(leaf.EmailAddresses) > 0 {
		who = leaf.EmailAddresses[0]
	}
	return fmt.Sprintf("S/MIME %s %s", who, leaf.NotBefore.UTC().Format("2006-01-02"))
}

func readBackLeaf(chain []*x509.Certificate, key wincrypt.KeyLocation) error {
	issuers, err := filed(wincrypt.CA)
	if err != nil {
		return err
	}
	for _, c := range chain[1:] {
		if _, ok := entryOf(issuers, c); !ok {
			return fmt.Errorf("issuer %q is not there after it was filed", c.Subject.CommonName)
		}
	}
	return withCerts(wincrypt.My, func(cs *wincrypt.CertStore) error {
		mine, err := cs.List()
		if err != nil {
			return err
		}
		f, ok := entryOf(mine, chain[0])
		if !ok || f.Key != key {
			return fmt.Errorf("the leaf is not there with its key after it was filed (found: %v, key %q of %q)", ok, f.Key.Container, f.Key.Provider)
		}
		err = cs.CheckBinding(chain[0].Raw)
		if wincrypt.ClassOf(err) == wincrypt.Missing {
			// The key is there, for it was found before: this is no [ErrNotFound],
			// which would end the enrollment.
			return errors.New("the certificate does not lead to its key: " + err.Error())
		}
		return err
	})
}

// Find looks among all of the user's certificates, by key. An archived one,
// which mail programs do not see, counts only if there is no other.
func (s *windowsStore) Find(_ context.Context, id KeyID) ([]*x509.Certificate, error) {
	chain, err := s.findChain(id)
	if err != nil {
		return nil, s.wrap(err, "find certificate for key", id)
	}
	return chain, nil
}

func (s *windowsStore) findChain(id KeyID) ([]*x509.Certificate, error) {
	l, err := s.find(id)
	if err != nil {
		return nil, err
	}
	mine, err := filed(wincrypt.My)
	if err != nil {
		return nil, err
	}
	leaf, ok := newestFor(l.public, parsed(mine, false))
	if !ok {
		leaf, ok = newestFor(l.public, parsed(mine, true))
	}
	if !ok {
		return nil, ErrNotFound
	}
	var others []*x509.Certificate
	for _, store := range []string{wincrypt.CA, wincrypt.Root} {
		list, err := filed(store)
		if err != nil {
			return nil, err
		}
		others = append(others, parsed(list, false)...)
	}
	return chainOf(leaf, others), nil
}

// Remove takes the certificate out of the user's own store, or from among the
// issuers. Anchors are not touched.
func (s *windowsStore) Remove(_ context.Context, cert *x509.Certificate) error {
	for _, store := range []string{wincrypt.My, wincrypt.CA} {
		err := withCerts(store, func(cs *wincrypt.CertStore) error { return cs.Remove(cert.Raw) })
		if err != nil {
			return fmt.Errorf("remove certificate from store %s: %w", s.info.Name, windowsError(err))
		}
		list, err := filed(store)
		if err != nil {
			return fmt.Errorf("remove certificate from store %s: %w", s.info.Name, windowsError(err))
		}
		if _, ok := entryOf(list, cert); ok {
			return fmt.Errorf("remove certificate from store %s: it is still in %s", s.info.Name, store)
		}
	}
	return nil
}

// Trust cannot be had silently: Windows warns the person in a dialog of its own
// before anything is added to CurrentUser\Root. Anchors belong to the
// administrator's LocalMachine\Root, which is seen in the user's too.
func (s *windowsStore) Trust(_ context.Context, anchor *x509.Certificate) error {
	return fmt.Errorf("trust %q in store %s: %w for a user: Windows would ask the person in a warning of its own; "+
		"anchors are deployed to the machine", anchor.Subject.CommonName, s.info.Name, ErrUnsupported)
}
