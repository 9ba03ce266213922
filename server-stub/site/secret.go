package site

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ErrExposed: a secret lies where more can read it than the server alone.
var ErrExposed = errors.New("other accounts can read")

// readSecret reads the file of a setting that holds a password or a key, without
// the end of its line. A file that other accounts can read is [ErrExposed], but for
// one of root's that a group may read, as libpq has it for keys (its manual, "Client
// Certificates"): so an operating system hands secrets to a service, be it Debian's group
// ssl-cert, Kubernetes with an fsGroup, or systemd, whose credentials have mode 0400
// and an access list (write_credential in its src/core/exec-credential.c), which shows
// as 0440 (acl(5)).
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
	if uid, known := ownerOf(info); known && uid == 0 {
		private |= 0o040
	}
	// Where users have no number, as on Windows, the mode says nothing of access lists.
	if mode := info.Mode().Perm(); os.Getuid() >= 0 && mode&^private != 0 {
		return nil, fmt.Errorf("%w %s (mode %04o)", ErrExposed, path, mode)
	}
	return io.ReadAll(file)
}
