package platform

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"smime-agent/platform/internal/outlook"
	"smime-agent/platform/internal/win32"
)

// userRegistry is the registry as this process sees it, in the view of 64-bit
// programs.
type userRegistry struct{}

func hive(h outlook.Hive) registry.Key {
	if h == outlook.LocalMachine {
		return registry.LOCAL_MACHINE
	}
	return registry.CURRENT_USER
}

// registryError puts Windows' words for "not there" and "not allowed" into ours.
func registryError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, registry.ErrNotExist), errors.Is(err, windows.ERROR_PATH_NOT_FOUND):
		return outlook.ErrNone
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}

// Keys is [outlook.Registry]'s.
func (userRegistry) Keys(h outlook.Hive, key string) ([]string, error) {
	k, err := registry.OpenKey(hive(h), key, registry.ENUMERATE_SUB_KEYS|registry.WOW64_64KEY)
	if err != nil {
		return nil, registryError(err)
	}
	defer k.Close() //nolint:errcheck // it was only read
	names, err := k.ReadSubKeyNames(-1)
	return names, registryError(err)
}

// Value is [outlook.Registry]'s.
func (userRegistry) Value(h outlook.Hive, key, name string) (outlook.Value, error) {
	k, err := registry.OpenKey(hive(h), key, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return outlook.Value{}, registryError(err)
	}
	defer k.Close() //nolint:errcheck // it was only read
	data := make([]byte, 1024)
	for {
		n, kind, err := k.GetValue(name, data)
		if errors.Is(err, registry.ErrShortBuffer) {
			data = make([]byte, n)
			continue
		}
		if err != nil {
			return outlook.Value{}, registryError(err)
		}
		return outlook.Value{Kind: outlook.Kind(kind), Data: data[:n]}, nil
	}
}

// Set is [outlook.Registry]'s.
func (userRegistry) Set(key, name string, v outlook.Value) error {
	k, _, err := registry.CreateKey(registry.CURRENT_USER, key, registry.SET_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return registryError(err)
	}
	defer k.Close() //nolint:errcheck // what is set is set
	return registryError(win32.SetRegistryValue(windows.Handle(k), name, uint32(v.Kind), v.Data))
}

// Unset is [outlook.Registry]'s. A key that has got values or subkeys stays.
func (userRegistry) Unset(key, name string) error {
	k, err := registry.OpenKey(registry.CURRENT_USER, key, registry.QUERY_VALUE|registry.SET_VALUE|registry.WOW64_64KEY)
	if err = registryError(err); errors.Is(err, outlook.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer k.Close() //nolint:errcheck // what is done is done
	if name != "" {
		if err = registryError(k.DeleteValue(name)); errors.Is(err, outlook.ErrNone) {
			return nil
		}
		return err
	}
	if i, err := k.Stat(); err != nil || i.ValueCount > 0 || i.SubKeyCount > 0 {
		return registryError(err)
	}
	return registryError(registry.DeleteKey(registry.CURRENT_USER, key))
}

// running says that a program of that file name runs in this process's session.
func running(name string) (bool, error) {
	var ours uint32
	if err := windows.ProcessIdToSessionId(windows.GetCurrentProcessId(), &ours); err != nil {
		return false, fmt.Errorf("ask for the session: %w", err)
	}
	all, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return false, fmt.Errorf("list processes: %w", err)
	}
	defer windows.CloseHandle(all) //nolint:errcheck // it was only read
	e := windows.ProcessEntry32{Size: processEntrySize}
	for err = windows.Process32First(all, &e); err == nil; err = windows.Process32Next(all, &e) {
		var session uint32
		if !strings.EqualFold(windows.UTF16ToString(e.ExeFile[:]), name) {
			continue
		}
		if failed := windows.ProcessIdToSessionId(e.ProcessID, &session); failed != nil || session == ours {
			return true, nil // one that does not say counts as ours
		}
	}
	if !errors.Is(err, windows.ERROR_NO_MORE_FILES) {
		return false, fmt.Errorf("list processes: %w", err)
	}
	return false, nil
}

// processEntrySize is sizeof(PROCESSENTRY32W) on 64-bit Windows.
const processEntrySize = 568
