//go:build !windows

package platform

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFileStoreFolder(t *testing.T) {
	s := newFileStore(t.TempDir())
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	id := KeyID(OurPrefix + "1")
	if _, err := s.Create(t.Context(), id, KeySpec{Algorithm: P256}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{s.dir: os.ModeDir | 0o700, filepath.Join(s.dir, string(id)+".key"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestFileStoreNames(t *testing.T) {
	s := newFileStore(t.TempDir())
	for _, id := range []KeyID{"", "..", "a/b", "../../x", ".hidden", "a.b", "a\x00b", "a\nb"} {
		if _, err := s.Create(t.Context(), id, KeySpec{Algorithm: P256}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Create %q: %v", id, err)
		}
		if _, err := s.Open(t.Context(), id); err == nil {
			t.Errorf("Open %q went through", id)
		}
		if err := s.Delete(t.Context(), id); err == nil {
			t.Errorf("Delete %q went through", id)
		}
	}
}

// TestFileStoreDamaged: a torn key file without certificate is made anew, one
// with a certificate is left for a person to mend.
func TestFileStoreDamaged(t *testing.T) {
	for _, certified := range []bool{false, true} {
		s, id := newFileStore(t.TempDir()), KeyID(OurPrefix+"1")
		path := filepath.Join(s.dir, string(id)+".key")
		if err := s.write(path, []byte("-----BEGIN PRIVATE KEY-----\nMIG")); err != nil {
			t.Fatal(err)
		}
		torn := filepath.Join(s.dir, tempPrefix+string(id)+".key-0123")
		if err := os.WriteFile(torn, []byte("left by a crash"), 0o600); err != nil {
			t.Fatal(err)
		}
		if certified {
			if err := s.write(filepath.Join(s.dir, string(id)+".0123.crt"), []byte("a certificate")); err != nil {
				t.Fatal(err)
			}
		}
		if infos, err := s.Keys(t.Context()); err != nil || len(infos) != 1 || infos[0].Public != nil || infos[0].Certified != certified {
			t.Errorf("Keys: %+v, %v", infos, err)
		}
		if _, err := s.Open(t.Context(), id); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("Open: %v", err)
		}
		_, err := s.Create(t.Context(), id, KeySpec{Algorithm: P256})
		if certified != errors.Is(err, errDamaged) || !certified && err != nil {
			t.Errorf("Create, certified %v: %v", certified, err)
		}
		if _, err := os.Stat(torn); !certified && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what a crash left is still there: %v", err)
		}
	}
}
