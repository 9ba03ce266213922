package platform

import (
	"context"
	"crypto/x509"
	"fmt"

	"smime-agent/platform/internal/wincrypt"
)

var _ Holder = (*windowsStore)(nil)

// Held is [Holder]'s: the user's own certificates that name a key.
func (*windowsStore) Held(context.Context) ([]*x509.Certificate, error) {
	list, err := filed(wincrypt.My)
	if err != nil {
		return nil, fmt.Errorf("list certificates in store %s: %w", wincrypt.My, windowsError(err))
	}
	var held []*x509.Certificate
	for _, f := range list {
		if c, err := x509.ParseCertificate(f.DER); err == nil && f.Key.Container != "" {
			held = append(held, c)
		}
	}
	return held, nil
}
