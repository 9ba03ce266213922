package win32

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procRegSetValueEx = advapi32.NewProc("RegSetValueExW")

// SetRegistryValue writes a value of any type, octet by octet, which
// golang.org/x/sys/windows/registry does for some types only.
func SetRegistryValue(key windows.Handle, name string, kind uint32, data []byte) error {
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return fmt.Errorf("name of a value: %w", err)
	}
	var first *byte
	if len(data) > 0 {
		first = &data[0]
	}
	code, _, _ := procRegSetValueEx.Call(uintptr(key), uintptr(unsafe.Pointer(wide)), 0, uintptr(kind),
		uintptr(unsafe.Pointer(first)), uintptr(len(data)))
	if code != 0 { // it answers its error instead of setting the last one
		return failure(syscall.Errno(code))
	}
	return nil
}
