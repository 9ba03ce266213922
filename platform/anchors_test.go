package platform_test

import (
	"errors"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestOnlyRootsAreTrustedOnTheMachine: neither a person's certificate nor an
// issuing CA's, whatever the system does with roots.
func TestOnlyRootsAreTrustedOnTheMachine(t *testing.T) {
	ca := platformtest.NewAuthority(t)
	if added, err := platform.TrustOnMachine(ca.Issuing); added || err == nil || errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("an issuing CA: added %v, %v", added, err)
	}
	store, id := platformtest.NewStore("memory"), platformtest.NewID(t)
	key, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true})
	if err != nil {
		t.Fatal(err)
	}
	leaf := ca.Chain(t, key.Public(), 0)[0]
	if added, err := platform.TrustOnMachine(leaf); added || err == nil || errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("a person's: added %v, %v", added, err)
	}
}
