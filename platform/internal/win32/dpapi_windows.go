package win32

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Protect encrypts for this account on this machine (DPAPI). What is in entropy
// must be there to decrypt it again.
func Protect(secret, entropy []byte) ([]byte, error) {
	in, extra, out := blob(secret), blob(entropy), windows.DataBlob{}
	if err := windows.CryptProtectData(in, nil, extra, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, fmt.Errorf("CryptProtectData: %w", err)
	}
	return taken(out), nil
}

// Unprotect decrypts what [Protect] made.
func Unprotect(sealed, entropy []byte) ([]byte, error) {
	in, extra, out := blob(sealed), blob(entropy), windows.DataBlob{}
	if err := windows.CryptUnprotectData(in, nil, extra, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, fmt.Errorf("CryptUnprotectData: %w", err)
	}
	return taken(out), nil
}

func blob(data []byte) *windows.DataBlob {
	return &windows.DataBlob{Size: uint32(len(data)), Data: unsafe.SliceData(data)}
}

// taken copies what the system allocated, wipes it and gives it back.
func taken(b windows.DataBlob) []byte {
	lent := unsafe.Slice(b.Data, b.Size)
	data := append([]byte{}, lent...)
	clear(lent)
	_, _ = windows.LocalFree(windows.Handle(unsafe.Pointer(b.Data)))
	return data
}
