//go:build cgo

package platform_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// alone runs a test in a process of its own: Thunderbird's libraries are newer
// than the system's and must be loaded first. It says whether this is it.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv("SMIME_TEST_ALONE") != "" {
		return true
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), "SMIME_TEST_ALONE=1")
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestThunderbirdStore takes Thunderbird's softoken from where it is installed,
// or from the folder in SMIME_TEST_THUNDERBIRD.
func TestThunderbirdStore(t *testing.T) {
	softoken := platformtest.NeedFile(t, "Thunderbird's softoken", filepath.Join(os.Getenv("SMIME_TEST_THUNDERBIRD"), "libsoftokn3.so"),
		"/usr/lib/thunderbird/libsoftokn3.so", "/usr/lib64/thunderbird/libsoftokn3.so")
	if !alone(t) {
		return
	}
	home := t.TempDir()
	open := func(dir, password string) func(t *testing.T) platform.Store {
		return func(t *testing.T) platform.Store {
			s, err := platform.OpenNSS(dir, softoken, func(context.Context, string, bool) (string, error) { return password, nil })
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	profile := open(filepath.Join(home, "abcd.default"), "")
	can := platformtest.StoreTests{PSS: true, OAEP: true, Agree: true, Algorithms: kinds(t)}
	t.Run("new", func(t *testing.T) { platformtest.TestStore(t, profile, can) })
	t.Run("password", func(t *testing.T) {
		n := platformtest.NSSDir(t, "correct horse") // an older NSS made it; the other way round it would not open
		platformtest.TestStore(t, open(n.Dir, n.Password), can)
	})
	t.Run("in turns with the system's", func(t *testing.T) {
		for range 2 {
			if err := roundTrip(t.Context(), nssAt(t, home, ""), platformtest.NewID(t)); err != nil {
				t.Errorf("system's softoken: %v", err)
			}
			if err := roundTrip(t.Context(), profile(t), platformtest.NewID(t)); err != nil {
				t.Errorf("Thunderbird's softoken: %v", err)
			}
		}
	})
}

// TestThunderbirdFound: Stores finds an installed Thunderbird's profile and the
// shared database beside it, and both work in one process.
func TestThunderbirdFound(t *testing.T) {
	platformtest.NeedFile(t, "Thunderbird in /usr/lib", "/usr/lib/thunderbird/libsoftokn3.so", "/usr/lib64/thunderbird/libsoftokn3.so")
	if !alone(t) {
		return
	}
	home := t.TempDir()
	root := filepath.Join(home, ".thunderbird")
	if err := os.MkdirAll(filepath.Join(root, "abcd.default"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "profiles.ini"), []byte("[Profile0]\nIsRelative=1\nPath=abcd.default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Info().Name)
		if err := roundTrip(t.Context(), s, platformtest.NewID(t)); err != nil {
			t.Errorf("%s: %v", s.Info().Name, err)
		}
	}
	if want := []string{"nss:default", "nss:abcd.default", "file"}; !slices.Equal(names, want) {
		t.Errorf("stores %v, want %v", names, want)
	}
	for _, file := range []string{"cert9.db", "key4.db"} {
		if _, err := os.Stat(filepath.Join(root, "abcd.default", file)); err != nil {
			t.Error(err)
		}
	}
}
