package site

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ErrExposed: a secret lies where more can read it than the server alone.
var ErrExposed = errors.New("other accounts can read")

// readSecret reads the file of a setting that holds a password or a key, without
// the end of its line. A file that other accounts can read is [ErrExposed].
func readSecret(dir, setting, file string) (string, error) {
	text, err := readPrivate(within(dir, file))
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w", ConfigFile, setting, err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

func readPrivate(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	private := os.FileMode(0o700)
	if isCredential(path) {
		private |= 0o040
	}
	// Where users have no number, as on Windows, the mode says nothing of access lists.
	if mode := info.Mode().Perm(); os.Getuid() >= 0 && mode&^private != 0 {
		return nil, fmt.Errorf("%w %s (mode %04o)", ErrExposed, path, mode)
	}
	return io.ReadAll(file)
}

// isCredential says that systemd handed the file to this service (LoadCredential=).
// Such a file is root's, mode 0400, with an access list that lets the service read
// it (write_credential in systemd's src/core/exec-credential.c). With an access list,
// the group's bits show its mask (acl(5)), so the mode reads 0440.
func isCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && filepath.Dir(path) == filepath.Clean(dir)
}
