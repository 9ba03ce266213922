package helper

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// Install files the leaf beside its key, and the issuers where mail programs
// build paths, then reads all back. Anchors become trusted for e-mail where the
// store can do that. A chain for another key is refused before anything is filed.
func (s *Session) Install(ctx context.Context, w enroll.InstallWanted) error {
	_, err := run(ctx, s, job[struct{}]{w.Store, w.ID, w.Modules, func(ctx context.Context, store platform.Store) (struct{}, error) {
		return struct{}{}, s.install(ctx, store, w)
	}})
	return err
}

func (s *Session) install(ctx context.Context, store platform.Store, w enroll.InstallWanted) error {
	chain, err := parse(w.Chain)
	if err != nil {
		return s.rejected(store, err)
	}
	anchors, err := parse(w.Trust)
	if err != nil && len(w.Trust) > 0 {
		return s.rejected(store, err)
	}
	for _, a := range anchors {
		if !a.IsCA {
			return s.rejected(store, errors.New("an anchor that is no CA"))
		}
	}
	key, err := s.openKey(ctx, store, w.ID)
	if err != nil {
		return err
	}
	defer closeKey(key)
	if !sameKey(chain[0].PublicKey, key.Public()) {
		return s.rejected(store, fmt.Errorf("the certificate is not for key %s", w.ID))
	}
	if err := store.Install(ctx, platform.KeyID(w.ID), chain); err != nil {
		return s.failure(aboutKey, w.Store, fmt.Errorf("install certificate of %s: %w", w.ID, err))
	}
	if err := s.trust(ctx, store, anchors); err != nil {
		return err
	}
	found, err := store.Find(ctx, platform.KeyID(w.ID))
	if err != nil {
		return s.fail(enroll.Transient, enroll.CodeStoreFailed, w.Store, fmt.Errorf("read back certificate of %s: %w", w.ID, err))
	}
	if missing := missingFrom(found, chain); missing != nil {
		return s.fail(enroll.Transient, enroll.CodeStoreFailed, w.Store,
			fmt.Errorf("read back certificate of %s: %q is not there", w.ID, missing.Subject.CommonName))
	}
	return nil
}

func (s *Session) rejected(store platform.Store, err error) error {
	return s.fail(enroll.Final, enroll.CodeCertificateRejected, store.Info().Name, err)
}

// trust leaves stores alone that have no trust of their own for e-mail.
func (s *Session) trust(ctx context.Context, store platform.Store, anchors []*x509.Certificate) error {
	truster, ok := store.(platform.Truster)
	if !ok {
		return nil
	}
	for _, a := range anchors {
		err := truster.Trust(ctx, a)
		if errors.Is(err, platform.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return s.failure(aboutStore, store.Info().Name, fmt.Errorf("trust %q for e-mail: %w", a.Subject.CommonName, err))
		}
	}
	return nil
}

// parse reads certificates; there must be at least one.
func parse(raw [][]byte) ([]*x509.Certificate, error) {
	if len(raw) == 0 {
		return nil, errors.New("no certificates")
	}
	all := make([]*x509.Certificate, 0, len(raw))
	for i, der := range raw {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of %d: %w", i+1, len(raw), err)
		}
		all = append(all, c)
	}
	return all, nil
}

// missingFrom gives the first certificate of the chain that the store did not
// find at its place. The leaf must be the same; for an issuer name and key count,
// since a store may choose another certificate of the same CA. A root at the end
// may be missing: many stores keep roots elsewhere.
func missingFrom(found, chain []*x509.Certificate) *x509.Certificate {
	for i, want := range chain {
		switch {
		case i == 0 && len(found) > 0 && found[0].Equal(want):
		case i > 0 && i < len(found) && sameAuthority(found[i], want):
		case i > 0 && i == len(chain)-1 && i == len(found) && bytes.Equal(want.RawIssuer, want.RawSubject):
		default:
			return want
		}
	}
	return nil
}

func sameAuthority(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && sameKey(a.PublicKey, b.PublicKey)
}
