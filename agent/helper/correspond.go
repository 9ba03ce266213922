package helper

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"smime-agent/agent/enroll"
	"smime-agent/agent/smime"
	"smime-agent/platform"
)

// Publish makes what a directory holds for the person: a signature over no
// content, with the person's chain. The key signs nothing that the service could
// choose, but which certificate of the same mailbox to encrypt to.
func (s *Session) Publish(ctx context.Context, w enroll.PublishWanted) ([]byte, error) {
	return run(ctx, s, job[[]byte]{w.Store, w.ID, w.Modules, func(ctx context.Context, store platform.Store) ([]byte, error) {
		return s.publish(ctx, store, w)
	}})
}

func (s *Session) publish(ctx context.Context, store platform.Store, w enroll.PublishWanted) ([]byte, error) {
	chain, err := parse(w.Chain)
	if err != nil {
		return nil, s.rejected(store, err)
	}
	var encryptTo []*x509.Certificate
	if len(w.EncryptTo) > 0 {
		if encryptTo, err = parse(w.EncryptTo); err != nil {
			return nil, s.rejected(store, err)
		}
		if !sameMailbox(chain[0], encryptTo[0]) {
			return nil, s.rejected(store, fmt.Errorf("the certificate to encrypt to is for another mailbox than %q", chain[0].Subject.CommonName))
		}
	}
	key, err := s.openKey(ctx, store, w.ID)
	if err != nil {
		return nil, err
	}
	defer closeKey(key)
	at := w.Now
	if at.IsZero() {
		at = s.Now()
	}
	value, err := smime.Publish(chain[0], chain[1:], encryptTo, key, at)
	if err != nil {
		return nil, s.failure(aboutKey, w.Store, fmt.Errorf("sign for the directory with key %s: %w", w.ID, err))
	}
	return value, nil
}

// sameMailbox says that both are for one address, at least.
func sameMailbox(a, b *x509.Certificate) bool {
	return slices.ContainsFunc(a.EmailAddresses, func(m string) bool {
		return slices.ContainsFunc(b.EmailAddresses, func(o string) bool { return strings.EqualFold(m, o) })
	})
}

// bookPart is how many certificates are filed at a time, so that others get
// their turn at the store.
const bookPart = 50

// FilePartners brings each address book to these certificates. One that cannot be
// used is among the failures and does not keep the others from being served; no
// dialog appears for it.
func (s *Session) FilePartners(ctx context.Context, certificates [][]byte) (enroll.PartnersFiled, error) {
	var wanted []*x509.Certificate
	if len(certificates) > 0 {
		var err error
		if wanted, err = parse(certificates); err != nil {
			return enroll.PartnersFiled{}, s.fail(enroll.Final, enroll.CodeInternal, "", err)
		}
	}
	ctx = withoutDialogs(ctx)
	release, err := s.turns.take(ctx, turnOfListing)
	if err != nil {
		return enroll.PartnersFiled{}, s.failure(aboutStore, "", err)
	}
	books, err := s.AddressBooks(ctx)
	release()
	var done enroll.PartnersFiled
	for _, err := range split(err) {
		done.Failures = append(done.Failures, enroll.AsError(s.failure(aboutStore, "", err)))
	}
	for _, b := range books {
		filed, withdrawn, err := s.bring(ctx, b, wanted)
		done.Filed, done.Withdrawn = done.Filed+filed, done.Withdrawn+withdrawn
		if ctx.Err() != nil {
			return done, s.failure(aboutStore, b.Name(), ctx.Err())
		}
		if err != nil {
			s.Log.Warn("partners' certificates not brought", "store", b.Name(), "error", err.Error())
			done.Failures = append(done.Failures, enroll.AsError(s.failure(aboutStore, b.Name(), err)))
		}
	}
	return done, nil
}

// bring files what is missing and takes away what is no longer wanted.
func (s *Session) bring(ctx context.Context, b platform.AddressBook, wanted []*x509.Certificate) (filed, withdrawn int, err error) {
	before, err := s.oursIn(ctx, b)
	if err != nil {
		return 0, 0, err
	}
	for part := range slices.Chunk(without(wanted, before), bookPart) {
		if err := s.inTurn(ctx, b, func() error { return b.Put(ctx, part) }); err != nil {
			return 0, 0, err
		}
	}
	for part := range slices.Chunk(without(before, wanted), bookPart) {
		if err := s.inTurn(ctx, b, func() error { return b.Remove(ctx, part) }); err != nil {
			return 0, 0, err
		}
	}
	after, err := s.oursIn(ctx, b)
	return len(without(after, before)), len(without(before, after)), err
}

func (s *Session) oursIn(ctx context.Context, b platform.AddressBook) (certs []*x509.Certificate, err error) {
	err = s.inTurn(ctx, b, func() error {
		certs, err = b.Ours(ctx)
		return err
	})
	return certs, err
}

// inTurn has the store of that name for itself.
func (s *Session) inTurn(ctx context.Context, b platform.AddressBook, do func() error) error {
	release, err := s.turns.take(ctx, b.Name())
	if err != nil {
		return err
	}
	defer release()
	return do()
}

// without gives those of a that are not in b.
func without(a, b []*x509.Certificate) []*x509.Certificate {
	in := make(map[string]bool, len(b))
	for _, c := range b {
		in[string(c.Raw)] = true
	}
	var out []*x509.Certificate
	for _, c := range a {
		if !in[string(c.Raw)] {
			out = append(out, c)
		}
	}
	return out
}
