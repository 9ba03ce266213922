package pkcs11

import (
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// bind loads the library. Its full path is needed, and what it needs is looked
// for in its own folder and in the system's, never in the current one or in
// PATH. So siblings are found without being named.
func bind(path string, _ []string) (*binding, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("load %s: the path is not absolute", path)
	}
	h, err := windows.LoadLibraryEx(path, 0, windows.LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR|windows.LOAD_LIBRARY_SEARCH_SYSTEM32)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, machineError(path, err))
	}
	list, err := windows.GetProcAddress(h, "C_GetFunctionList")
	if err != nil {
		return nil, fmt.Errorf("load %s: no PKCS #11 module: C_GetFunctionList is missing: %w", path, err)
	}
	b := &binding{}
	if err := b.read(list); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return b, nil
}

// read asks for the table of functions and copies it.
func (b *binding) read(getFunctionList uintptr) error {
	var table *[functionListSize]byte
	r, _, _ := syscall.SyscallN(getFunctionList, uintptr(unsafe.Pointer(&table)))
	if code := Code(uint32(r)); code != 0 {
		return fmt.Errorf("ask for its functions: %w", code)
	}
	if table == nil {
		return errors.New("it names no functions")
	}
	for i := range b.functions {
		b.functions[i] = uintptr(binary.LittleEndian.Uint64(table[2+i*pointerSize:])) // behind the version
	}
	return nil
}

// machineError says for what the library was built, if that is the trouble.
func machineError(path string, cause error) error {
	f, err := pe.Open(path)
	if err != nil {
		return cause
	}
	defer f.Close() //nolint:errcheck // it was only read
	names := map[uint16]string{pe.IMAGE_FILE_MACHINE_I386: "32-bit x86", pe.IMAGE_FILE_MACHINE_AMD64: "x64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}
	theirs, known := names[f.Machine]
	if !known || f.Machine == ownMachine {
		return cause
	}
	return fmt.Errorf("%w: the library is for %s, this program for %s: %w", ErrMachine, theirs, names[ownMachine], cause)
}
