package platform

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

// createIn makes a file that has its access list from the first moment. A mode
// that shuts others out becomes a list that does; any other takes what the folder
// hands down.
func createIn(root *os.Root, name string, perm fs.FileMode) (*os.File, error) {
	path := filepath.Join(root.Name(), name)
	var sd *windows.SECURITY_DESCRIPTOR
	if perm&0o077 == 0 {
		me, err := self()
		if err != nil {
			return nil, err
		}
		if sd, err = windows.SecurityDescriptorFromString(me.private()); err != nil {
			return nil, err
		}
	}
	h, err := win32.CreateFile(path, sd)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// Replacing waits this long for whoever has the old file open, such as a virus
// scanner or, under Wine, any reader.
const (
	replacePatience = 2 * time.Second
	replacePause    = 5 * time.Millisecond
)

func replaceIn(root *os.Root, from, to string) error {
	for end := time.Now().Add(replacePatience); ; time.Sleep(replacePause) {
		err := root.Rename(from, to)
		if !errors.Is(err, windows.ERROR_ACCESS_DENIED) && !errors.Is(err, windows.ERROR_SHARING_VIOLATION) || time.Now().After(end) {
			return err
		}
	}
}

// removeIn goes by the path where the system has no way of removing by the
// folder's handle: Wine 8.
func removeIn(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, windows.ERROR_INVALID_FUNCTION) {
		return os.Remove(filepath.Join(root.Name(), name))
	}
	return err
}
