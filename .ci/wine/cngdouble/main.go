// Command cngdouble builds a DOUBLE of ncrypt.dll for tests under Wine, whose
// own keeps no keys. It is written from Microsoft's documentation by the same
// hands as the code that it tests, keeps keys in unprotected files, and shows
// nothing about Windows. It is never shipped.
//
// With SMIME_CNG_DOUBLE_TPM=1 it pretends to have a TPM that makes RSA keys of
// 2048 bits and P-256 keys.
package main

import "C"

import (
	"os"
	"sync"
	"unsafe"
)

// The codes that the double answers (winerror.h).
const (
	ok              = 0
	nteBadKey       = 0x80090003
	nteExists       = 0x8009000F
	ntePerm         = 0x80090010
	nteBadKeyset    = 0x80090016
	nteFail         = 0x80090020
	nteInvalid      = 0x80090026
	nteParameter    = 0x80090027
	nteBufferSmall  = 0x80090028
	nteNotSupported = 0x80090029
	nteNoMore       = 0x8009002A
	nteNotReady     = 0x80090030
)

const tpmName = "Microsoft Platform Crypto Provider"

// objects are what handles stand for.
var objects = struct {
	sync.Mutex
	next uintptr
	all  map[uintptr]any
}{next: 0x1000, all: map[uintptr]any{}}

func newHandle(o any) uintptr {
	objects.Lock()
	defer objects.Unlock()
	objects.next += 8
	objects.all[objects.next] = o
	return objects.next
}

func object[T any](h uintptr) (*T, bool) {
	objects.Lock()
	defer objects.Unlock()
	o, found := objects.all[h].(*T)
	return o, found
}

type provider struct{ name string }

func (p *provider) tpm() bool { return p.name == tpmName }

func utf16(p *uint16) string {
	if p == nil {
		return ""
	}
	var out []rune
	for ; *p != 0; p = (*uint16)(unsafe.Add(unsafe.Pointer(p), 2)) {
		out = append(out, rune(*p))
	}
	return string(out)
}

// give copies an answer into the caller's buffer.
func give(answer, into []byte, n *uint32) uint32 {
	*n = uint32(len(answer))
	if len(into) < len(answer) {
		return nteBufferSmall
	}
	copy(into, answer)
	return ok
}

func buffer(p *byte, n uint32) []byte {
	if p == nil {
		return nil
	}
	return unsafe.Slice(p, n)
}

//export NCryptOpenStorageProvider
func NCryptOpenStorageProvider(h *uintptr, name *uint16, _ uint32) uint32 {
	switch n := utf16(name); {
	case n == "Microsoft Software Key Storage Provider", n == tpmName && os.Getenv("SMIME_CNG_DOUBLE_TPM") == "1":
		*h = newHandle(&provider{n})
		return ok
	}
	return nteNotReady
}

//export NCryptIsAlgSupported
func NCryptIsAlgSupported(h uintptr, algorithm *uint16, _ uint32) uint32 {
	p, found := object[provider](h)
	if !found {
		return nteInvalid
	}
	switch utf16(algorithm) {
	case "RSA", "ECDSA_P256", "ECDH_P256":
		return ok
	case "ECDSA_P384", "ECDH_P384":
		if !p.tpm() {
			return ok
		}
	}
	return nteNotSupported
}

//export NCryptFreeObject
func NCryptFreeObject(h uintptr) uint32 {
	objects.Lock()
	defer objects.Unlock()
	if objects.all[h] == nil {
		return nteInvalid
	}
	delete(objects.all, h)
	return ok
}

func main() {}
