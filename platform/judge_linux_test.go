//go:build cgo

package platform_test

import (
	"context"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestNSSJudged: what we file, certutil, cmsutil and openssl can use, two
// generations of a credential beside one another.
func TestNSSJudged(t *testing.T) {
	for _, password := range []string{"", "correct horse"} {
		for _, a := range []platform.KeyAlgorithm{platform.RSA2048, platform.RSA3072, platform.P256, platform.P384} {
			t.Run(string(a)+" "+password, func(t *testing.T) {
				n := platformtest.NSSDir(t, password)
				store := find(t, platform.StoreOptions{Home: n.Home,
					PIN: func(context.Context, string, bool) (string, error) { return password, nil }}, "nss:default")
				ca := platformtest.NewAuthority(t)
				truster, ok := store.(platform.Truster)
				if !ok {
					t.Fatalf("%T cannot trust", store)
				}
				for range 2 {
					if err := truster.Trust(t.Context(), ca.Root); err != nil {
						t.Fatalf("Trust: %v", err)
					}
				}
				for generation := range 2 {
					id := platformtest.NewID(t)
					key, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: a, Sign: true, Decrypt: true})
					if err != nil {
						t.Fatalf("Create: %v", err)
					}
					chain := ca.Chain(t, key.Public(), generation)
					if err := store.Install(t.Context(), id, chain); err != nil {
						t.Fatalf("Install: %v", err)
					}
					platformtest.JudgeNSS(t, n, id, chain)
				}
			})
		}
	}
}
