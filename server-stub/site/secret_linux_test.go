package site

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestSecretFiles: what only the server can read is taken, also as systemd hands
// credentials to a service, where the mode shows the mask of an access list.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	for _, c := range []struct {
		path string
		mode os.FileMode
		want error
	}{
		{"a", 0o600, nil},
		{"a", 0o400, nil},
		{"a", 0o440, ErrExposed},
		{"a", 0o404, ErrExposed},
		{"credentials/a", 0o400, nil},
		{"credentials/a", 0o440, nil},
		{"credentials/a", 0o444, ErrExposed},
		{"credentials/a", 0o460, ErrExposed},
		{"credentials/../a", 0o440, ErrExposed},
		{"credentials-of-others", 0o440, ErrExposed},
	} {
		path := filepath.Join(dir, c.path)
		if err := os.WriteFile(path, []byte("pass word\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret(dir, "mail.password_file", c.path)
		if !errors.Is(err, c.want) || c.want == nil && got != "pass word" {
			t.Errorf("%s of mode %o: %q, %v, want %v", c.path, c.mode, got, err, c.want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readSecret(dir, "mail.password_file", "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file gives %v", err)
	}
}
