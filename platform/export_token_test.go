//go:build cgo || windows

package platform

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"smime-agent/platform/internal/pkcs11"
)

// OpenNSS opens an NSS folder with a softoken of the test's choice.
func OpenNSS(dir, softoken string, ask PINFunc) (Store, error) {
	module, err := loadSoftoken([]string{softoken}, len(siblingsOf(softoken)) > 0)
	if err != nil {
		return nil, err
	}
	return newNSSStore("nss:"+dir, module, dir, nil, ask), nil
}

// KeyObjects counts the objects under a key's label, and says whether all of
// them bear NSS's ID.
func KeyObjects(ctx context.Context, s Store, id KeyID) (private, public int, mended bool, err error) {
	var token *tokenStore
	switch s := s.(type) {
	case nssStore:
		token = s.tokenStore
	case *tokenStore:
		token = s
	default:
		return 0, 0, false, fmt.Errorf("%T has no objects", s)
	}
	mended = true
	err = token.use(ctx, access{private: true}, "count objects", func(ss *pkcs11.Session) error {
		pairs, _, err := findPairs(ss, string(id))
		for _, p := range pairs {
			for _, h := range p.halves() {
				if h.Private {
					private++
				} else {
					public++
				}
				want, err := pkcs11.KeyID(p.key)
				mended = mended && err == nil && bytes.Equal(want, h.ID)
			}
		}
		return err
	})
	return private, public, mended, err
}

// Spoil breaks a key as a crash or another program may: it removes the private
// or public half, or gives a half an ID that means nothing.
func Spoil(ctx context.Context, s Store, id KeyID, how string) error {
	return s.(nssStore).use(ctx, access{write: true, private: true}, "spoil key", func(ss *pkcs11.Session) error {
		halves, err := ss.KeyHalves(string(id))
		if err != nil {
			return err
		}
		random := []byte("12345678901234567890")
		for _, h := range halves {
			switch {
			case how == "no private" && h.Private, how == "no public" && !h.Private:
				err = errors.Join(err, ss.Destroy(h.Object))
			case how == "both IDs", how == "private ID" && h.Private, how == "public ID" && !h.Private:
				err = errors.Join(err, ss.SetID(h, random))
			}
		}
		return err
	})
}

// PlantPair generates one more pair under a label, as two programs at once could.
func PlantPair(ctx context.Context, s Store, id KeyID) error {
	return s.(nssStore).use(ctx, access{write: true, private: true}, "plant pair", func(ss *pkcs11.Session) error {
		return ss.Generate(pkcs11.KeySpec{Label: string(id), Curve: elliptic.P256(), Decrypt: true, NSS: true})
	})
}

// PlantBadCertificate files bytes that no one can parse as a certificate.
func PlantBadCertificate(ctx context.Context, s Store, raw []byte) error {
	return s.(nssStore).use(ctx, access{write: true}, "plant certificate", func(ss *pkcs11.Session) error {
		bad := &x509.Certificate{Raw: raw, RawSubject: []byte{0x30, 0}, RawIssuer: []byte{0x30, 0}, SerialNumber: big.NewInt(7)}
		return ss.PutCertificate(bad, pkcs11.CertificateSpec{Label: "bad"})
	})
}

// AddressBookOf is the address book of an NSS store.
func AddressBookOf(s Store) AddressBook { return nssAddressBook(s.(nssStore)) }

// FileForeign files a certificate as another program does.
func FileForeign(ctx context.Context, s Store, c *x509.Certificate) error {
	return s.(nssStore).use(ctx, access{write: true}, "plant certificate", func(ss *pkcs11.Session) error {
		return ss.PutCertificate(c, pkcs11.CertificateSpec{Label: "somebody's", ID: c.SubjectKeyId})
	})
}

// AllFiled lists all certificates of an NSS store.
func AllFiled(ctx context.Context, s Store) (all []*x509.Certificate, err error) {
	err = s.(nssStore).use(ctx, access{}, "list certificates", func(ss *pkcs11.Session) error {
		filed, err := ss.Certificates()
		all = certsOf(filed)
		return err
	})
	return all, err
}
