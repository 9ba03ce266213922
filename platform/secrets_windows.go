package platform

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

// sealSecret encrypts for this account on this machine, which for the service is
// LocalSystem. DPAPI's machine scope would let every user of the machine decrypt
// a copy of the file. The name goes in too, so that one secret cannot be passed
// off as another.
func sealSecret(name string, value []byte) ([]byte, error) {
	// DPAPI takes nothing for a mistake, so there is always one byte.
	return win32.Protect(append([]byte{secretFormat}, value...), secretEntropy(name))
}

func openSecret(name string, sealed []byte) ([]byte, error) {
	value, err := win32.Unprotect(sealed, secretEntropy(name))
	if err != nil {
		return nil, fmt.Errorf("%w: it was not sealed by this account on this machine, or was changed: %w", ErrDenied, err)
	}
	if len(value) == 0 || value[0] != secretFormat {
		return nil, fmt.Errorf("%w: it is of an unknown format", ErrUnsupported)
	}
	return value[1:], nil
}

const secretFormat = 1

func secretEntropy(name string) []byte { return []byte("smime-agent secret\x00" + name) }

// checkSecret refuses a file that somebody else put there, or can read.
func checkSecret(f *os.File, path string) error {
	me, err := self()
	if err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sec guarding
	var asked error
	if err := raw.Control(func(fd uintptr) { sec, asked = me.inspect(windows.Handle(fd), windows.SE_FILE_OBJECT) }); err != nil {
		return err
	}
	switch {
	case asked != nil:
		return asked
	case !me.trusts(sec.owner):
		return fmt.Errorf("%w: %s belongs to %s", ErrDenied, path, sec.owner)
	case sec.others&(mayRead|mayWrite) != 0:
		return fmt.Errorf("%w: others can open %s (rights 0x%x)", ErrDenied, path, uint32(sec.others))
	}
	return nil
}
