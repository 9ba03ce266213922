//go:build linux || windows

package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// secretFiles keeps each secret in a file of its own in a private folder, sealed
// as the system can. The folder is opened for each call, not kept open: so it is checked each
// time, and heals after somebody removed it.
type secretFiles struct{ dir string }

func secrets(dir string) (SecretStore, error) {
	s := secretFiles{dir: filepath.Join(dir, "secrets")}
	return s, s.in(func(root *os.Root) error { return sweep(root, time.Now()) })
}

func (s secretFiles) Get(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.call(ctx, name, func(root *os.Root) (err error) {
		value, err = readSecret(root, name)
		if err == nil {
			value, err = openSecret(name, value)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read secret %q: %w", name, err)
	}
	return value, nil
}

func (s secretFiles) Put(ctx context.Context, name string, value []byte) error {
	err := s.call(ctx, name, func(root *os.Root) error {
		if len(value) > maxSecret {
			return fmt.Errorf("it is longer than %d bytes", maxSecret)
		}
		sealed, err := sealSecret(name, value)
		if err != nil {
			return err
		}
		return writeIn(root, name, sealed, 0o600)
	})
	if err != nil {
		return fmt.Errorf("keep secret %q: %w", name, err)
	}
	return nil
}

func (s secretFiles) Delete(ctx context.Context, name string) error {
	err := s.call(ctx, name, func(root *os.Root) error {
		return errors.Join(denied(forget(root, name)), syncFolder(root))
	})
	if err != nil {
		return fmt.Errorf("delete secret %q: %w", name, err)
	}
	return nil
}

// maxSecret is far above any key or token, in bytes; maxSealed leaves room for
// what sealing adds.
const (
	maxSecret = 1 << 20
	maxSealed = maxSecret + 4<<10
)

var secretName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func (s secretFiles) call(ctx context.Context, name string, do func(*os.Root) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !secretName.MatchString(name) {
		return fmt.Errorf("%w: a secret's name has only a-z, 0-9 and -", ErrUnsupported)
	}
	return s.in(do)
}

func (s secretFiles) in(do func(*os.Root) error) error {
	if err := PrivateDir(s.dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return denied(err)
	}
	return errors.Join(do(root), root.Close())
}

// exchanges is how often a secret may be replaced while it is read, before that
// is taken for an attack.
const exchanges = 100

var errExchanged = errors.New("it was exchanged while it was opened")

func readSecret(root *os.Root, name string) ([]byte, error) {
	for range exchanges {
		value, err := tryReadSecret(root, name)
		if !errors.Is(err, errExchanged) {
			return value, err
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrDenied, errExchanged)
}

func tryReadSecret(root *os.Root, name string) ([]byte, error) {
	// os.Root follows links that stay inside it; here nothing may be a link.
	before, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, denied(err)
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a regular file", ErrDenied)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, denied(err)
	}
	value, err := readOpened(f, before, filepath.Join(root.Name(), name))
	return value, errors.Join(err, f.Close())
}

func readOpened(f *os.File, before fs.FileInfo, path string) ([]byte, error) {
	now, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, now) {
		return nil, errExchanged
	}
	if err := checkSecret(f, path); err != nil {
		return nil, err
	}
	value, err := io.ReadAll(io.LimitReader(f, maxSealed+1))
	if err == nil && len(value) > maxSealed {
		err = fmt.Errorf("it is longer than %d bytes", maxSealed)
	}
	return value, err
}
