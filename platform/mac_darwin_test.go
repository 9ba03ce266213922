package platform_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// keychainVariable set to 1 says that the account's default keychain is one made
// for tests: they file keys and certificates in it, and preferences.
const keychainVariable = "SMIME_AGENT_TEST_KEYCHAIN"

func needKeychain(t *testing.T) {
	t.Helper()
	platformtest.Need(t, keychainVariable+"=1 (a default keychain made for tests)", os.Getenv(keychainVariable) == "1")
}

// TestMacKeychain holds the default keychain to the promises of a store.
func TestMacKeychain(t *testing.T) {
	needKeychain(t)
	o := platformtest.StoreTests{PSS: true, OAEP: true, Agree: true, Sealed: sealedInKeychain,
		Algorithms: []platform.KeyAlgorithm{platform.RSA3072, platform.P256, platform.P384}}
	platformtest.TestStore(t, func(t *testing.T) platform.Store {
		t.Helper()
		list, err := platform.Stores(t.Context(), platform.StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 || list[0].Info().Name != "keychain" {
			t.Fatalf("the keychain is not the first of %v", list)
		}
		return list[0]
	}, o)
}

// TestMacSecrets holds the keychain of this account to the promises of a secret
// store: the test's own items, apart from those of an installed service.
func TestMacSecrets(t *testing.T) {
	needKeychain(t)
	platformtest.TestSecrets(t, func(t *testing.T) platform.SecretStore {
		t.Helper()
		s, err := platform.Secrets(filepath.Join(os.TempDir(), t.Name()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, name := range []string{"device-key", "token", strings.Repeat("a", 64)} {
				if err := s.Delete(context.WithoutCancel(t.Context()), name); err != nil {
					t.Error(err)
				}
			}
		})
		return s
	})
}

// TestMacIPC: the address of a Unix socket has 103 bytes at most, so it lies in
// /tmp, not in the test's own long folder.
func TestMacIPC(t *testing.T) {
	platformtest.TestIPC(t, func(t *testing.T) string {
		t.Helper()
		dir, err := os.MkdirTemp("/tmp", "ipc") //nolint:usetesting // see above
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return filepath.Join(dir, "agent.sock")
	})
}

// TestMacMachine: what the system says of itself is there.
func TestMacMachine(t *testing.T) {
	m := platform.ThisMachine()
	if m.OS != "darwin" || !strings.HasPrefix(m.Version, "macOS 1") && !strings.HasPrefix(m.Version, "macOS 2") || len(m.ID) != 36 || m.Hostname == "" {
		t.Errorf("%+v", m)
	}
	u, err := platform.CurrentUser()
	if err != nil || !strings.HasPrefix(u.ID, "uid:") || u.Account == "" || u.Locale == "" {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestMacPaths: nobody but root may write a folder on the way to the places of an
// installed agent, as far as they are there.
func TestMacPaths(t *testing.T) {
	p := platform.SystemPaths()
	for _, path := range []string{p.Config, p.Policy, p.State, p.Logs, p.Address} {
		for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o022 != 0 {
				t.Errorf("%s lies below %s, which others can write (%s)", path, dir, info.Mode())
			}
			if dir == "/" {
				break
			}
		}
	}
}
