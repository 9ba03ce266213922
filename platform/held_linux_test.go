//go:build cgo

package platform_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestNSSHeld: certificates whose keys are in the database, whoever made them, and
// no others; whether there is a password or not.
func TestNSSHeld(t *testing.T) {
	for name, password := range map[string]string{"no password": "", "a password": "secret"} {
		t.Run(name, func(t *testing.T) {
			n, ca := platformtest.NSSDir(t, password), platformtest.NewAuthority(t)
			store := nssAt(t, n.Home, password)
			holder, ok := store.(platform.Holder)
			if !ok {
				t.Fatal("it cannot say")
			}
			if held, err := holder.Held(t.Context()); err != nil || len(held) != 0 {
				t.Fatalf("%d of nothing, %v", len(held), err)
			}
			noise := filepath.Join(n.Home, "noise")
			if err := os.WriteFile(noise, make([]byte, 1024), 0o600); err != nil {
				t.Fatal(err)
			}
			certutil(t, n, "-S", "-n", "from elsewhere", "-s", "CN=From Elsewhere", "-x", "-t", ",,", "-z", noise, "-k", "rsa", "-g", "2048", "-m", "7")
			id := platformtest.NewID(t)
			key, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048, Sign: true, Decrypt: true})
			if err != nil {
				t.Fatal(err)
			}
			older, newer := ca.Chain(t, key.Public(), 0), ca.Chain(t, key.Public(), 1)
			for _, chain := range [][]*x509.Certificate{older, newer} {
				if err := store.Install(t.Context(), id, chain); err != nil {
					t.Fatal(err)
				}
			}
			if err := nssBook(t, n).Put(t.Context(), []*x509.Certificate{ca.Partner(t, "bob@example.com")}); err != nil {
				t.Fatal(err)
			}
			for _, s := range []platform.Holder{holder, nssAt(t, n.Home, "").(platform.Holder)} { // the latter knows no password
				held, err := s.Held(t.Context())
				want := map[string]bool{string(older[0].Raw): true, string(newer[0].Raw): true}
				elsewhere := 0
				for _, c := range held {
					if c.Subject.CommonName == "From Elsewhere" {
						elsewhere++
						continue
					}
					if !want[string(c.Raw)] {
						t.Errorf("%s is held", c.Subject)
					}
					delete(want, string(c.Raw))
				}
				if err != nil || len(want) != 0 || elsewhere != 1 {
					t.Errorf("%d are missing, %d from elsewhere, %v", len(want), elsewhere, err)
				}
			}
		})
	}
}
