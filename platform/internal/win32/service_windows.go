package win32

import (
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

// DelayStart lets the service start shortly after those that the logon waits for.
func DelayStart(service windows.Handle) error {
	info := windows.SERVICE_DELAYED_AUTO_START_INFO{IsDelayedAutoStartUp: 1}
	return windows.ChangeServiceConfig2(service, windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, (*byte)(unsafe.Pointer(&info)))
}

// RequirePrivileges takes all privileges from the service's token but these, from
// its next start on (SERVICE_REQUIRED_PRIVILEGES_INFO).
func RequirePrivileges(service windows.Handle, names []string) error {
	var list []uint16
	for _, name := range names {
		list = append(append(list, utf16.Encode([]rune(name))...), 0)
	}
	list = append(list, 0)
	info := struct{ names *uint16 }{&list[0]}
	return windows.ChangeServiceConfig2(service, windows.SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, (*byte)(unsafe.Pointer(&info)))
}
