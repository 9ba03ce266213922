package wincrypt

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// status calls a procedure that answers a SECURITY_STATUS. The thread's last
// error is noise then: Windows leaves codes of earlier calls in it even for
// keys that exist (smallstep/crypto, kms/capi/ncrypt_windows.go).
//
//go:uintptrescapes
func status(p *windows.LazyProc, args ...uintptr) error {
	if p.Find() != nil {
		return &Error{Call: p.Name, Code: codeProcNotFound}
	}
	r, _, _ := p.Call(args...)
	if code := uint32(r); code != 0 {
		return &Error{Call: p.Name, Code: code}
	}
	return nil
}

// boolean calls a procedure that answers BOOL and leaves its reason as the
// thread's last error, which may be 0 even then: that is a failure too.
//
//go:uintptrescapes
func boolean(p *windows.LazyProc, args ...uintptr) error {
	if p.Find() != nil {
		return &Error{Call: p.Name, Code: codeProcNotFound}
	}
	r, _, err := p.Call(args...)
	if uint32(r) != 0 {
		return nil
	}
	return failed(p.Name, err)
}

// failed gives an error of package windows our form.
func failed(call string, err error) error {
	if err == nil {
		return nil
	}
	code, _ := errors.AsType[syscall.Errno](err)
	return &Error{Call: call, Code: uint32(code)}
}

// text is a string for Windows. It must not hold a NUL.
func text(s string) (*uint16, error) {
	return windows.UTF16PtrFromString(s)
}

// first gives the address of a buffer, nil for an empty one.
func first[T any](b []T) *T {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}
