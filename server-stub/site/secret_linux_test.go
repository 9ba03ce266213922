package site

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestSecretFiles: what only the server can read is taken, and what root lets a group
// read; nothing that everybody can, or that a group can write.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	root, somebody := 0, 65534
	if os.Getuid() != 0 { // who cannot give files away sees of the rule what holds for his own
		somebody = os.Getuid()
		root = -1
	}
	for _, c := range []struct {
		owner int
		mode  os.FileMode
		want  error
	}{
		{somebody, 0o600, nil},
		{somebody, 0o400, nil},
		{somebody, 0o700, nil},
		{somebody, 0o440, ErrExposed},
		{somebody, 0o640, ErrExposed},
		{somebody, 0o604, ErrExposed},
		{root, 0o600, nil},
		{root, 0o440, nil}, // as systemd shows credentials
		{root, 0o640, nil},
		{root, 0o644, ErrExposed},
		{root, 0o660, ErrExposed},
		{root, 0o650, ErrExposed},
		{root, 0o604, ErrExposed},
	} {
		if c.owner < 0 {
			continue
		}
		path := filepath.Join(dir, "secret")
		if err := os.WriteFile(path, []byte("pass word\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chown(path, c.owner, -1), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret(dir, "mail.password_file", "secret")
		if !errors.Is(err, c.want) || c.want == nil && got != "pass word" {
			t.Errorf("of %d, mode %o: %q, %v, want %v", c.owner, c.mode, got, err, c.want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readSecret(dir, "mail.password_file", "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file gives %v", err)
	}
}
