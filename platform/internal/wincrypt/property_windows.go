package wincrypt

import (
	"bytes"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"
)

// KeyLocation says where a certificate's key is (CRYPT_KEY_PROV_INFO). For a
// CNG key type and spec are 0.
type KeyLocation struct {
	Container, Provider string
	Type, Spec          uint32
}

// keyProvInfo is CRYPT_KEY_PROV_INFO.
type keyProvInfo struct {
	container, provider *uint16
	kind, flags         uint32
	paramCount          uint32
	params              unsafe.Pointer
	spec                uint32
}

// setKey ties a key of the user to a context.
func setKey(c *windows.CertContext, key KeyLocation) error {
	container, err := text(key.Container)
	if err != nil {
		return err
	}
	provider, err := text(key.Provider)
	if err != nil {
		return err
	}
	return setProperty(c, keyProvInfoProperty,
		unsafe.Pointer(&keyProvInfo{container: container, provider: provider, kind: key.Type, spec: key.Spec}))
}

// setName gives a context its friendly name: UTF-16 with its NUL, in a blob.
func setName(c *windows.CertContext, name string) error {
	w, err := windows.UTF16FromString(name)
	if err != nil {
		return err
	}
	return setBlob(c, friendlyNameProperty, unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(w)*2))
}

// setBlob sets a property that is a CRYPT_DATA_BLOB; the system copies it.
func setBlob(c *windows.CertContext, id uintptr, content []byte) error {
	blob := &windows.CryptDataBlob{Size: uint32(len(content)), Data: &content[0]}
	err := setProperty(c, id, unsafe.Pointer(blob))
	runtime.KeepAlive(content)
	return err
}

func setProperty(c *windows.CertContext, id uintptr, value unsafe.Pointer) error {
	return boolean(procCertSetCertificateContextProperty, uintptr(unsafe.Pointer(c)), id, 0, uintptr(value))
}

// maxProperty bounds what a property of a stranger's certificate may cost.
const maxProperty = 1 << 16

// value is a property as Windows gives it: a structure whose pointers lead
// into the same memory. They are followed by their distance from its start,
// and never out of it, for anybody can have written the property.
type value struct {
	words []uint64 // for the alignment
	size  int
}

// property reads a property; nil if there is none, or none that makes sense.
func property(c *windows.CertContext, id uintptr) *value {
	size := uint32(0)
	err := boolean(procCertGetCertificateContextProperty, uintptr(unsafe.Pointer(c)), id, 0, uintptr(unsafe.Pointer(&size)))
	if err != nil || size == 0 || size > maxProperty {
		return nil
	}
	v := &value{words: make([]uint64, (size+7)/8), size: int(size)}
	err = boolean(procCertGetCertificateContextProperty, uintptr(unsafe.Pointer(c)), id,
		uintptr(unsafe.Pointer(&v.words[0])), uintptr(unsafe.Pointer(&size)))
	if err != nil {
		return nil
	}
	return v
}

func hasProperty(c *windows.CertContext, id uintptr) bool {
	var size uint32
	return boolean(procCertGetCertificateContextProperty, uintptr(unsafe.Pointer(c)), id, 0, uintptr(unsafe.Pointer(&size))) == nil
}

// units are the memory as UTF-16.
func (v *value) units() []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(&v.words[0])), v.size/2)
}

// bytes are a copy of the memory.
func (v *value) bytes() []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&v.words[0])), v.size))
}

// text gives the text that begins at an offset in bytes and ends at a NUL or
// with the memory.
func (v *value) text(offset int) string {
	units := v.units()
	if offset < 0 || offset%2 != 0 || offset/2 > len(units) {
		return ""
	}
	return windows.UTF16ToString(units[offset/2:])
}

// location reads CRYPT_KEY_PROV_INFO.
func (v *value) location() KeyLocation {
	var info keyProvInfo
	if v.size < int(unsafe.Sizeof(info)) {
		return KeyLocation{}
	}
	info = *(*keyProvInfo)(unsafe.Pointer(&v.words[0]))
	return KeyLocation{Container: v.follow(info.container), Provider: v.follow(info.provider), Type: info.kind, Spec: info.spec}
}

// follow reads the text that a pointer inside the memory leads to.
func (v *value) follow(p *uint16) string {
	distance := uintptr(unsafe.Pointer(p)) - uintptr(unsafe.Pointer(&v.words[0]))
	if p == nil || distance >= uintptr(v.size) {
		return ""
	}
	return v.text(int(distance))
}
