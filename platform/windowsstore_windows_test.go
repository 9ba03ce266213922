package platform_test

import (
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// open finds the stores anew, as the helper does, and picks one.
func openStore(t *testing.T, name string) platform.Store {
	t.Helper()
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: tempDir(t)})
	if err != nil {
		t.Fatalf("Stores: %v", err)
	}
	for _, s := range list {
		if s.Info().Name == name {
			return s
		}
	}
	return nil
}

func TestWindowsStore(t *testing.T) {
	t.Logf("the store says: %+v", openStore(t, "windows").Info())
	platformtest.TestStore(t, func(t *testing.T) platform.Store { return openStore(t, "windows") }, platformtest.StoreTests{})
}

func TestWindowsFileStore(t *testing.T) {
	o := platform.StoreOptions{Home: tempDir(t)}
	list, err := platform.Stores(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	platformtest.TestStore(t, func(*testing.T) platform.Store { return list[len(list)-1] },
		platformtest.StoreTests{PSS: true, OAEP: true, Agree: true, Algorithms: []platform.KeyAlgorithm{platform.RSA2048, platform.P256}})
}
