package platform

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tempPrefix begins the names of files that are being written; a crash leaves
// one behind under such a name, never half a file under the right one.
const tempPrefix = ".writing-"

// WriteFile replaces a file: after a crash there is the old content or the new,
// whole. The file has perm from its first moment, and what stands at path is
// replaced, never followed, if it is a link. Errors of permission are
// [ErrDenied].
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, denied(err))
	}
	err = writeIn(root, filepath.Base(path), data, perm)
	return errors.Join(err, root.Close())
}

// PrivateDir makes a folder, with its parents, that only this account may
// enter, or sets a folder of ours back to that. [ErrDenied] if it is a link,
// belongs to another account, or lies where another account could exchange it.
func PrivateDir(path string) error { return privateDir(path) }

// ReadTrusted reads a file that nobody but an administrator (root, SYSTEM) and
// this account can have written, nor led us to by a link or a folder of theirs;
// else [ErrDenied]. private says that no other account can read it either.
// [ErrNotFound] if there is none; an error if it is longer than limit bytes.
func ReadTrusted(path string, limit int64) (data []byte, private bool, err error) {
	return readTrusted(path, limit)
}

// writeIn writes beside the file that it then replaces, so that the rename
// stays in one file system.
func writeIn(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	temp := tempPrefix + name + "-" + rand.Text()
	err := fill(root, temp, data, perm)
	if err == nil {
		err = replaceIn(root, temp, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(denied(err), forget(root, temp)))
	}
	if err := syncFolder(root); err != nil {
		return fmt.Errorf("write %s: sync folder: %w", name, err)
	}
	return nil
}

func fill(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	f, err := createIn(root, name, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func forget(root *os.Root, name string) error {
	if err := removeIn(root, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// leftoverAge is far beyond the time that any write takes, so that nobody's
// file in the making is swept away.
const leftoverAge = 10 * time.Minute

// sweep removes what crashed writers left in the folder.
func sweep(root *os.Root, now time.Time) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), tempPrefix) || now.Sub(info.ModTime()) < leftoverAge {
			continue
		}
		failed = append(failed, forget(root, e.Name()))
	}
	return errors.Join(failed...)
}

// denied puts [ErrDenied] before the system's refusals.
func denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}
