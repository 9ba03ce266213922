package platform

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// profileInUse tries what a Mozilla program tries (toolkit/profile/nsProfileLock.cpp):
// parent.lock is open without sharing while a profile is in use.
func profileInUse(dir string) (bool, error) {
	name, err := windows.UTF16PtrFromString(filepath.Join(dir, "parent.lock"))
	if err != nil {
		return false, err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
	switch {
	case errors.Is(err, windows.ERROR_SHARING_VIOLATION):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, denied(err)
	}
	return false, windows.CloseHandle(h)
}
