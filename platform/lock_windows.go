package platform

import (
	"fmt"
	"os"
	"syscall"
)

// sharingViolation is ERROR_SHARING_VIOLATION (winerror.h).
const sharingViolation = syscall.Errno(32)

// lock opens the file so that nobody else can open it (CreateFileW,
// dwShareMode 0); the system closes it with the process. A link is opened itself,
// not followed.
func lock(path string) (func() error, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL|syscall.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err == sharingViolation { //nolint:errorlint // a bare errno
		err = fmt.Errorf("%w: %w", ErrExists, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, denied(err))
	}
	return os.NewFile(uintptr(h), path).Close, nil
}
