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

// maxServiceConfig is the most that the service manager answers, in bytes
// (QueryServiceConfigW).
const maxServiceConfig = 8 << 10

// ServiceProgram is the command line that starts the service. Unlike mgr's Config
// it asks nothing that Wine 8 does not know.
func ServiceProgram(service windows.Handle) (string, error) {
	buffer := make([]uint64, maxServiceConfig/8) // aligned for its pointers, which lead into it
	config := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buffer[0]))
	var needed uint32
	if err := windows.QueryServiceConfig(service, config, maxServiceConfig, &needed); err != nil {
		return "", err
	}
	return windows.UTF16PtrToString(config.BinaryPathName), nil
}

// SetServiceProgram changes the command line that starts the service, from its
// next start on.
func SetServiceProgram(service windows.Handle, line string) error {
	wide, err := windows.UTF16PtrFromString(line)
	if err != nil {
		return err
	}
	return windows.ChangeServiceConfig(service, windows.SERVICE_NO_CHANGE, windows.SERVICE_NO_CHANGE, windows.SERVICE_NO_CHANGE,
		wide, nil, nil, nil, nil, nil, nil)
}
