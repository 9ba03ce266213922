package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceFile writes a file of mode 0600 so that after a crash or a power loss
// there is the old content or the new one: written aside, flushed, renamed,
// and the folder flushed too. The name aside is always the same, so that what
// a crash left there, which may be a key, is gone with the next attempt.
func replaceFile(path string, content []byte) error {
	aside := asideOf(path)
	if err := removeFile(aside); err != nil {
		return err
	}
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		return errors.Join(err, removeFile(aside))
	}
	return syncFolder(filepath.Dir(path))
}

// asideOf is where a file is written before it takes its name.
func asideOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// removeFile is no error if the file is not there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// denied puts ErrDenied beside the system's word that something is not permitted.
func denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}
