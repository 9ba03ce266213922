package win32

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/windows"
)

// library is loaded from the system's own folder and from nowhere else.
func library(name string) *windows.LazyDLL { return windows.NewLazySystemDLL(name) }

var (
	advapi32 = library("advapi32.dll")
	comctl32 = library("comctl32.dll")
	ntdll    = library("ntdll.dll")
	shell32  = library("shell32.dll")
	user32   = library("user32.dll")

	procImpersonateNamedPipeClient = advapi32.NewProc("ImpersonateNamedPipeClient")
	procWineGetVersion             = ntdll.NewProc("wine_get_version")
)

// failure is the error of a function that answered FALSE. Some forget to set
// one; then there is still an error.
func failure(err error) error {
	if errors.Is(err, syscall.Errno(0)) || err == nil {
		return errors.New("it failed without saying why")
	}
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("code 0x%08x: %w", uint32(code), err)
	}
	return err
}

// Wine says that this is Wine and not Windows: what it does otherwise is worked
// around only there.
func Wine() bool { return procWineGetVersion.Find() == nil }
