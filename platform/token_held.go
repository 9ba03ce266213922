//go:build cgo || windows

package platform

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"smime-agent/platform/internal/pkcs11"
)

var _ Holder = (*tokenStore)(nil)

// Held is [Holder]'s. While the token is locked it goes by the public objects, as
// [tokenStore.Keys] does.
func (s *tokenStore) Held(ctx context.Context) ([]*x509.Certificate, error) {
	var held []*x509.Certificate
	a := access{private: s.pin.remembers(ctx)}
	err := s.use(ctx, a, "list certificates with their keys", func(ss *pkcs11.Session) error {
		halves, err := ss.KeyHalves("")
		if err != nil {
			return err
		}
		filed, err := ss.Certificates()
		if err != nil {
			return err
		}
		locked := !a.private && ss.Token.LoginRequired()
		held = nil
		for _, f := range filed {
			if slices.ContainsFunc(halves, func(h pkcs11.Half) bool { return (h.Private || locked) && isHalfFor(h, f) }) {
				held = append(held, f.Cert)
			}
		}
		return nil
	})
	if errors.Is(err, errNoDatabase) {
		return nil, nil
	}
	return held, err
}

// isHalfFor: by the public key, or where a private object does not tell it, by the ID
// that both have.
func isHalfFor(h pkcs11.Half, f pkcs11.Filed) bool {
	if h.Public != nil {
		return samePublic(h.Public, f.Cert.PublicKey)
	}
	return len(h.ID) > 0 && string(h.ID) == string(f.ID)
}
