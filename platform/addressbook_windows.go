package platform

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"smime-agent/platform/internal/wincrypt"
)

// addressBooks gives the user's store "Other People", where the friendly name
// marks what was filed here and travels with the certificate, and the NSS
// databases of Thunderbird, which does not look there.
func addressBooks(_ context.Context, o StoreOptions) ([]AddressBook, error) {
	books, err := profileBooks(o.Home, o.PIN)
	return append([]AddressBook{windowsAddressBook{}}, books...), err
}

type windowsAddressBook struct{}

func (windowsAddressBook) Name() string { return windowsStoreName }

// placeOf: issuers lie where Windows builds chains, people among other people.
func placeOf(c *x509.Certificate) string {
	if c.IsCA {
		return wincrypt.CA
	}
	return wincrypt.AddressBook
}

func (b windowsAddressBook) Put(ctx context.Context, certs []*x509.Certificate) error {
	return b.inEach(ctx, "file", certs, func(s *wincrypt.CertStore, c *x509.Certificate) error {
		return s.AddNamed(c.Raw, partnerName(c))
	})
}

// inEach opens each place once. A certificate that is refused does not keep the
// others from being served.
func (windowsAddressBook) inEach(ctx context.Context, what string, certs []*x509.Certificate,
	do func(*wincrypt.CertStore, *x509.Certificate) error,
) error {
	for _, place := range []string{wincrypt.AddressBook, wincrypt.CA} {
		err := withCerts(place, func(s *wincrypt.CertStore) error {
			var failed []error
			for _, c := range certs {
				if placeOf(c) == place {
					failed = append(failed, ctx.Err(), do(s, c))
				}
			}
			return errors.Join(failed...)
		})
		if err != nil {
			return fmt.Errorf("%s partners' certificates in store %s: %w", what, place, windowsError(err))
		}
	}
	return nil
}

func (windowsAddressBook) Ours(context.Context) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, place := range []string{wincrypt.AddressBook, wincrypt.CA} {
		list, err := filed(place)
		if err != nil {
			return nil, fmt.Errorf("list partners' certificates in store %s: %w", place, windowsError(err))
		}
		for _, f := range list {
			if c, err := x509.ParseCertificate(f.DER); err == nil && isPartnerName(f.Name) && f.Key.Container == "" {
				certs = append(certs, c)
			}
		}
	}
	return certs, nil
}

func (b windowsAddressBook) Remove(ctx context.Context, certs []*x509.Certificate) error {
	ours, err := b.Ours(ctx)
	if err != nil {
		return err
	}
	var all []*x509.Certificate
	for _, place := range []string{wincrypt.My, wincrypt.AddressBook, wincrypt.CA} {
		list, err := filed(place)
		if err != nil {
			return fmt.Errorf("list certificates in store %s: %w", place, windowsError(err))
		}
		all = append(all, parsed(list, false)...)
		all = append(all, parsed(list, true)...)
	}
	certs = unneeded(both(certs, ours), all)
	return b.inEach(ctx, "take away", certs, func(s *wincrypt.CertStore, c *x509.Certificate) error { return s.Remove(c.Raw) })
}
