//go:build cgo || windows

package platform

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/platform/internal/pkcs11"
)

// nssAddressBook marks what it files by its label, which travels with the
// object: nothing beside the database has to be kept, or can get lost.
type nssAddressBook struct{ *tokenStore }

// addressBooksOf gives those of the stores that are NSS databases.
func addressBooksOf(stores []Store) []AddressBook {
	var books []AddressBook
	for _, s := range stores {
		if n, ok := s.(nssStore); ok && n.nss.exists() {
			books = append(books, nssAddressBook(n))
		}
	}
	return books
}

func (b nssAddressBook) Name() string { return b.info.Name }

func (b nssAddressBook) Put(ctx context.Context, certs []*x509.Certificate) error {
	return b.use(ctx, access{write: true}, "file partners' certificates", func(ss *pkcs11.Session) error {
		for _, c := range certs {
			if err := ctx.Err(); err != nil {
				return err
			}
			spec := pkcs11.CertificateSpec{Label: partnerName(c), ID: c.SubjectKeyId}
			if !c.IsCA && len(c.EmailAddresses) > 0 {
				// NSS looks for addresses in lower case only (CERT_FixupEmailAddr).
				spec.Email = strings.ToLower(c.EmailAddresses[0])
			}
			if id, err := pkcs11.KeyID(c.PublicKey); err == nil && !c.IsCA {
				spec.ID = id // as NSS's own programs import it
			}
			if err := ss.AddCertificate(c, spec); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b nssAddressBook) Ours(ctx context.Context) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	err := b.use(ctx, access{}, "list partners' certificates", func(ss *pkcs11.Session) error {
		filed, err := ss.CertificatesNamed(isPartnerName)
		certs = certsOf(filed)
		return err
	})
	if errors.Is(err, errNoDatabase) {
		return nil, nil
	}
	return certs, err
}

func (b nssAddressBook) Remove(ctx context.Context, certs []*x509.Certificate) error {
	err := b.use(ctx, access{write: true}, "take partners' certificates away", func(ss *pkcs11.Session) error {
		filed, err := ss.CertificatesNamed(isPartnerName)
		if err != nil {
			return err
		}
		everything, err := ss.Certificates()
		if err != nil {
			return err
		}
		gone := unneeded(both(certs, certsOf(filed)), certsOf(everything))
		for _, f := range filed {
			if !slices.ContainsFunc(gone, f.Cert.Equal) {
				continue
			}
			if err := removePartner(ss, f); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errNoDatabase) {
		return nil
	}
	return err
}

func certsOf(filed []pkcs11.Filed) []*x509.Certificate {
	certs := make([]*x509.Certificate, 0, len(filed))
	for _, f := range filed {
		certs = append(certs, f.Cert)
	}
	return certs
}

// removePartner leaves a certificate that has become the person's own: a key of
// his may have got the certificate of a set that was filed before.
func removePartner(ss *pkcs11.Session, f pkcs11.Filed) error {
	id, err := pkcs11.KeyID(f.Cert.PublicKey)
	if err == nil {
		own, err := ss.HasKey(id)
		if err != nil || own {
			return err
		}
	}
	if err := ss.Destroy(f.Object); err != nil {
		return fmt.Errorf("%q: %w", f.Cert.Subject.CommonName, err)
	}
	return nil
}
