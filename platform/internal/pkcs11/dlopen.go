//go:build cgo && !windows

package pkcs11

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"unsafe"
)

// openGlobal loads a library so that its symbols serve those loaded later.
func openGlobal(path string) error {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if C.dlopen(name, C.RTLD_NOW|C.RTLD_GLOBAL) == nil {
		return loadError()
	}
	return nil
}

// probe says why a library cannot be loaded; the binding's own loader only
// says that it cannot.
func probe(path string) error {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, C.RTLD_LAZY)
	if handle == nil {
		return loadError()
	}
	defer C.dlclose(handle)
	symbol := C.CString("C_GetFunctionList")
	defer C.free(unsafe.Pointer(symbol))
	if C.dlsym(handle, symbol) == nil {
		return errors.New("no PKCS #11 module: C_GetFunctionList is missing")
	}
	return nil
}

func loadError() error {
	if text := C.dlerror(); text != nil {
		return errors.New(C.GoString(text))
	}
	return errors.New("the library cannot be loaded")
}

// reserved copies s to memory that C may keep until free is called.
func reserved(s string) (pointer unsafe.Pointer, free func()) {
	p := unsafe.Pointer(C.CString(s))
	return p, func() { C.free(p) }
}
