//go:build cgo

package platform_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestNSSChangedMeanwhile: between two uses that follow each other closely the
// library is not initialized anew. What somebody else did to the database in
// between is seen all the same.
func TestNSSChangedMeanwhile(t *testing.T) {
	t.Run("password set", func(t *testing.T) {
		n, id := platformtest.NSSDir(t, ""), platformtest.NewID(t)
		nobody := find(t, platform.StoreOptions{Home: n.Home}, "nss:default")
		create(t, nobody, id)
		after := filepath.Join(n.Home, "new password")
		if err := os.WriteFile(after, []byte("battery staple\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := nobody.Open(t.Context(), id); err != nil { // the library rests now
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "certutil", "-W", "-d", "sql:"+n.Dir, "-f", n.PasswordFile, "-@", after).CombinedOutput()
		if err != nil {
			t.Fatalf("certutil -W: %v: %s", err, out)
		}
		if _, err := nobody.Open(t.Context(), id); !errors.Is(err, platform.ErrLocked) {
			t.Errorf("Open after a password was set: %v, want ErrLocked", err)
		}
		if _, err := nssAt(t, n.Home, "battery staple").Open(t.Context(), id); err != nil {
			t.Errorf("Open with the new password: %v", err)
		}
	})
	t.Run("another database", func(t *testing.T) {
		n, id := platformtest.NSSDir(t, ""), platformtest.NewID(t)
		store := nssAt(t, n.Home, "")
		create(t, store, id)
		if err := os.Rename(n.Dir, n.Dir+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), id); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("Open without a database: %v, want ErrNotFound", err)
		}
		other := platformtest.NewID(t)
		create(t, store, other) // makes a new database
		checkOneKey(t, store, other)
		if err := os.Rename(n.Dir, n.Dir+".second"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(n.Dir+".away", n.Dir); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), other); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("Open of a key of the other database: %v, want ErrNotFound", err)
		}
		checkOneKey(t, store, id)
	})
}
