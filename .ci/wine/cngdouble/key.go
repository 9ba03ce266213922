package main

// #include <stdlib.h>
import "C"

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"unsafe"
)

// key is a key, kept or in the making.
type key struct {
	Algorithm     string
	Policy, Usage uint32
	PKCS8         []byte

	provider *provider
	name     string
	bits     uint32
	private  crypto.Signer // nil until it is finished
}

func (p *provider) folder() string {
	return filepath.Join(os.Getenv("APPDATA"), "smime-cng-double", p.name)
}

func (p *provider) file(name string) string { return filepath.Join(p.folder(), name+".json") }

//export NCryptCreatePersistedKey
func NCryptCreatePersistedKey(h uintptr, out *uintptr, algorithm, name *uint16, legacySpec, flags uint32) uint32 {
	p, found := object[provider](h)
	if !found {
		return nteInvalid
	}
	if legacySpec != 0 || flags != 0 {
		return nteParameter
	}
	k := &key{Algorithm: utf16(algorithm), provider: p, name: utf16(name), bits: 2048}
	if code := NCryptIsAlgSupported(h, algorithm, 0); code != ok {
		return code
	}
	if _, err := os.Stat(p.file(k.name)); err == nil {
		return nteExists
	}
	*out = newHandle(k)
	return ok
}

//export NCryptSetProperty
func NCryptSetProperty(h uintptr, property *uint16, value *uint32, size, flags uint32) uint32 {
	k, found := object[key](h)
	if !found || k.private != nil {
		return nteInvalid
	}
	if size != 4 {
		return nteParameter
	}
	switch utf16(property) {
	case "Length":
		if *value < 1024 || *value > 4096 || k.provider.tpm() && *value != 2048 {
			return nteParameter
		}
		k.bits = *value
	case "Export Policy":
		if flags&0x80000000 == 0 {
			return nteParameter
		}
		k.Policy = *value
	case "Key Usage":
		k.Usage = *value
	default:
		return nteNotSupported
	}
	return ok
}

//export NCryptFinalizeKey
func NCryptFinalizeKey(h uintptr, _ uint32) uint32 {
	k, found := object[key](h)
	if !found || k.private != nil {
		return nteInvalid
	}
	var err error
	switch k.Algorithm {
	case "RSA":
		k.private, err = rsa.GenerateKey(rand.Reader, int(k.bits))
	case "ECDSA_P256", "ECDH_P256":
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	if err != nil || k.keep() != nil {
		return nteFail
	}
	return ok
}

func (k *key) keep() (err error) {
	if k.PKCS8, err = x509.MarshalPKCS8PrivateKey(k.private); err != nil {
		return err
	}
	content, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.provider.folder(), 0o700); err != nil {
		return err
	}
	return os.WriteFile(k.provider.file(k.name), content, 0o600)
}

//export NCryptOpenKey
func NCryptOpenKey(h uintptr, out *uintptr, name *uint16, legacySpec, _ uint32) uint32 {
	p, found := object[provider](h)
	if !found {
		return nteInvalid
	}
	k := &key{provider: p, name: utf16(name)}
	content, err := os.ReadFile(p.file(k.name))
	if err != nil || legacySpec != 0 {
		return nteBadKeyset
	}
	if json.Unmarshal(content, k) != nil {
		return nteBadKey
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return nteBadKey
	}
	k.private, _ = parsed.(crypto.Signer)
	*out = newHandle(k)
	return ok
}

//export NCryptDeleteKey
func NCryptDeleteKey(h uintptr, _ uint32) uint32 {
	k, found := object[key](h)
	if !found {
		return nteInvalid
	}
	if os.Remove(k.provider.file(k.name)) != nil {
		return nteBadKeyset
	}
	return NCryptFreeObject(h)
}

// listing is where an enumeration stands; the caller holds an address of ours.
type listing struct{ names []string }

// keyName is NCryptKeyName.
type keyName struct {
	name, algorithm *uint16
	legacySpec      uint32
	flags           uint32
}

//export NCryptEnumKeys
func NCryptEnumKeys(h uintptr, scope *uint16, out *unsafe.Pointer, state *unsafe.Pointer, _ uint32) uint32 {
	p, found := object[provider](h)
	if !found || scope != nil {
		return nteInvalid
	}
	if *state == nil {
		entries, _ := os.ReadDir(p.folder())
		l := &listing{}
		for _, e := range entries {
			l.names = append(l.names, e.Name()[:len(e.Name())-len(".json")])
		}
		sort.Strings(l.names)
		*state = C.malloc(8)
		*(*uintptr)(*state) = newHandle(l)
	}
	l, found := object[listing](*(*uintptr)(*state))
	if !found {
		return nteInvalid
	}
	if len(l.names) == 0 {
		return nteNoMore
	}
	name := l.names[0]
	l.names = l.names[1:]
	size := unsafe.Sizeof(keyName{})
	memory := C.malloc(C.size_t(int(size) + 2*len(name) + 4)) // the name, an empty algorithm, in one piece
	text := unsafe.Slice((*uint16)(unsafe.Add(memory, size)), len(name)+2)
	for i := range len(name) {
		text[i] = uint16(name[i])
	}
	text[len(name)], text[len(name)+1] = 0, 0
	*(*keyName)(memory) = keyName{name: &text[0], algorithm: &text[len(name)+1]}
	*out = memory
	return ok
}

//export NCryptFreeBuffer
func NCryptFreeBuffer(p unsafe.Pointer) uint32 {
	C.free(p)
	return ok
}

//export NCryptGetProperty
func NCryptGetProperty(h uintptr, property *uint16, into *byte, size uint32, n *uint32, _ uint32) uint32 {
	if p, found := object[provider](h); found {
		if utf16(property) == "Impl Type" {
			kind := byte(2)
			if p.tpm() {
				kind = 1
			}
			return give([]byte{kind, 0, 0, 0}, buffer(into, size), n)
		}
		if utf16(property) != "PCP_PLATFORM_TYPE" || !p.tpm() {
			return nteNotSupported
		}
		var out []byte
		for _, c := range "TPM-Version:2.0 -Level:0-Revision:1.38-VendorID:'DUBL'-Firmware:0.0\x00" {
			out = binary.LittleEndian.AppendUint16(out, uint16(c))
		}
		return give(out, buffer(into, size), n)
	}
	k, found := object[key](h)
	if !found {
		return nteInvalid
	}
	var numbers []uint32
	switch utf16(property) {
	case "Lengths":
		numbers = []uint32{512, 16384, 64, 2048}
		if k.provider.tpm() {
			numbers = []uint32{1024, 2048, 1024, 2048}
		}
	case "Export Policy":
		numbers = []uint32{k.Policy}
	case "Key Usage":
		numbers = []uint32{k.Usage}
	default:
		return nteNotSupported
	}
	var out []byte
	for _, v := range numbers {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return give(out, buffer(into, size), n)
}
