package platform_test

import (
	"bytes"
	"crypto/x509"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/internal/wincrypt"
	"smime-agent/platform/platformtest"
)

// TestWindowsHeld: certificates that name a key, whoever made it, and no others.
func TestWindowsHeld(t *testing.T) {
	s, ca, id := windowsStore(t), platformtest.NewAuthority(t), platformtest.NewID(t)
	ours := ca.Chain(t, makeWindowsKey(t, s, id).Public(), 0)
	if err := s.Install(t.Context(), id, ours); err != nil {
		t.Fatal(err)
	}
	elsewhere, partner := ca.Partner(t, "ann@example.com"), ca.Partner(t, "bob@example.com")
	inStore(t, wincrypt.My, func(cs *wincrypt.CertStore) error {
		return cs.Add(elsewhere.Raw, wincrypt.KeyLocation{Container: "of another program", Provider: "Microsoft Enhanced Cryptographic Provider v1.0", Type: 1}, "elsewhere")
	})
	inStore(t, wincrypt.My, func(cs *wincrypt.CertStore) error { return cs.AddIssuer(partner.Raw) })
	t.Cleanup(func() {
		for _, c := range []*x509.Certificate{elsewhere, partner} {
			inStore(t, wincrypt.My, func(cs *wincrypt.CertStore) error { return cs.Remove(c.Raw) })
		}
	})
	holder, ok := s.(platform.Holder)
	if !ok {
		t.Fatal("it cannot say")
	}
	held, err := holder.Held(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	has := func(want *x509.Certificate) bool {
		for _, c := range held {
			if bytes.Equal(c.Raw, want.Raw) {
				return true
			}
		}
		return false
	}
	if !has(ours[0]) || !has(elsewhere) || has(partner) {
		t.Errorf("ours %v, from elsewhere %v, one without a key %v", has(ours[0]), has(elsewhere), has(partner))
	}
}
