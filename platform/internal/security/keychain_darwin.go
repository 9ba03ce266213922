//go:build cgo

package security

/*
#cgo darwin CFLAGS: -mmacosx-version-min=12.0 -Wall -Werror=incompatible-pointer-types -Werror=implicit-function-declaration -Wno-deprecated-declarations
#cgo darwin LDFLAGS: -framework CoreFoundation -framework Security
#include <stdlib.h>
#include "keychain.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// Keychain is an open keychain. Each task opens its own.
type Keychain struct {
	ref C.kc_handle
}

// AllowQuestions says whether the system may ask the person on behalf of this
// process. It is one flag for the whole process (SecKeychain.h).
func AllowQuestions(allowed bool) error {
	return failed(C.kc_allow_questions(C.bool(allowed)))
}

// Default opens the user's default keychain: normally the login keychain.
// [NoDefaultKeychain] if he has none.
func Default() (*Keychain, error) {
	k := &Keychain{}
	return opened(k, C.kc_keychain_default(&k.ref))
}

// Open opens the keychain in a file. [NoSuchKeychain] if there is none.
func Open(path string) (*Keychain, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	k := &Keychain{}
	return opened(k, C.kc_keychain_open(name, &k.ref))
}

func opened(k *Keychain, status C.kc_status) (*Keychain, error) {
	if err := failed(status); err != nil {
		return nil, err
	}
	// Opening succeeds for a file that is not there, too; asking for its state
	// does not.
	if _, err := k.Unlocked(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Close gives the reference back, once; the keychain stays as it is.
func (k *Keychain) Close() error {
	C.kc_release(k.ref)
	k.ref = 0
	return nil
}

// Unlocked says whether secrets can be used now.
func (k *Keychain) Unlocked() (bool, error) {
	var unlocked C.bool
	err := failed(C.kc_keychain_unlocked(k.ref, &unlocked))
	return bool(unlocked), err
}

// Make makes a key that cannot be taken out of the keychain, for this program
// and those of the specification that are installed. A key that turns out to be
// extractable ([Key.Extractable]) is left to the caller to delete.
func (k *Keychain) Make(s Spec) (*Key, error) {
	programs, err := programsOf(s.Programs)
	if err != nil {
		return nil, fmt.Errorf("name the programs that may use the key: %w", err)
	}
	defer C.kc_release(programs)
	name := C.CString(s.Name)
	defer C.free(unsafe.Pointer(name))
	kind := C.int32_t(C.KC_RSA)
	if s.EC {
		kind = C.int32_t(C.KC_EC)
	}
	tag := []byte(s.Tag)
	key := &Key{}
	err = failed(C.kc_key_make(k.ref, programs, kind, C.int32_t(s.Bits), name, start(tag), C.size_t(len(tag)), &key.ref))
	if err != nil {
		return nil, err
	}
	return key, nil
}

// programsOf leaves out programs that are not installed.
func programsOf(paths []string) (C.kc_handle, error) {
	var programs C.kc_handle
	if err := failed(C.kc_programs_new(&programs)); err != nil {
		return 0, err
	}
	for _, path := range paths {
		name := C.CString(path)
		// What cannot be trusted now asks later; that is no reason to make no key.
		_ = failed(C.kc_programs_add(programs, name))
		C.free(unsafe.Pointer(name))
	}
	return programs, nil
}

// Items lists private keys: those with the tag, or all if it is empty. Nobody
// is asked for anything: only records are read.
func (k *Keychain) Items(tag string) ([]Item, error) {
	list, err := k.keys(tag)
	if err != nil {
		return nil, err
	}
	defer C.kc_release(list)
	return describeAll(list)
}

func (k *Keychain) keys(tag string) (C.kc_handle, error) {
	var list C.kc_handle
	raw := []byte(tag)
	err := failed(C.kc_keys(k.ref, start(raw), C.size_t(len(raw)), &list))
	return list, err
}

func describeAll(list C.kc_handle) ([]Item, error) {
	var items []Item
	for i := range int(C.kc_count(list)) {
		var tag, name, label C.kc_bytes
		if err := failed(C.kc_keys_describe(list, C.size_t(i), &tag, &name, &label)); err != nil {
			return nil, err
		}
		items = append(items, Item{Tag: string(taken(&tag)), Name: string(taken(&name)), Label: taken(&label)})
	}
	return items, nil
}

// Take gives the one key of that tag and label. [ItemNotFound].
func (k *Keychain) Take(item Item) (*Key, error) {
	key := &Key{}
	err := k.one(item, func(list C.kc_handle, i C.size_t) error {
		return failed(C.kc_keys_take(list, i, &key.ref))
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

// Delete deletes the one private key of that tag and label, after its public
// part: what a crash leaves in between still bears its name.
func (k *Keychain) Delete(item Item) error {
	if len(item.Label) > 0 {
		if err := failed(C.kc_public_delete(k.ref, start(item.Label), C.size_t(len(item.Label)))); err != nil {
			return err
		}
	}
	return k.one(item, func(list C.kc_handle, i C.size_t) error {
		return failed(C.kc_keys_delete(k.ref, list, i))
	})
}

// one finds the only key that is described so. Two that look the same are
// [DuplicateItem]: nobody could say which is meant.
func (k *Keychain) one(wanted Item, do func(list C.kc_handle, i C.size_t) error) error {
	list, err := k.keys(wanted.Tag)
	if err != nil {
		return err
	}
	defer C.kc_release(list)
	items, err := describeAll(list)
	if err != nil {
		return err
	}
	found := -1
	for i, item := range items {
		if item.Tag != wanted.Tag || item.Name != wanted.Name || string(item.Label) != string(wanted.Label) {
			continue
		}
		if found >= 0 {
			return DuplicateItem
		}
		found = i
	}
	if found < 0 {
		return ItemNotFound
	}
	return do(list, C.size_t(found))
}

// Public gives the public key with that label: PKCS #1 of an RSA key, the point
// of an EC key. [ItemNotFound].
func (k *Keychain) Public(label []byte) ([]byte, error) {
	var out C.kc_bytes
	err := failed(C.kc_public(k.ref, start(label), C.size_t(len(label)), &out))
	return taken(&out), err
}

// Certificates lists all certificates of the keychain, as DER.
func (k *Keychain) Certificates() ([][]byte, error) {
	list, all, err := k.certificates()
	if err == nil {
		C.kc_release(list)
	}
	return all, err
}

func (k *Keychain) certificates() (C.kc_handle, [][]byte, error) {
	var list C.kc_handle
	if err := failed(C.kc_certificates(k.ref, &list)); err != nil {
		return 0, nil, err
	}
	var all [][]byte
	for i := range int(C.kc_count(list)) {
		var der C.kc_bytes
		if err := failed(C.kc_certificates_der(list, C.size_t(i), &der)); err != nil {
			C.kc_release(list)
			return 0, nil, err
		}
		all = append(all, taken(&der))
	}
	return list, all, nil
}

// AddCertificate files a certificate; one that is there already is no error.
func (k *Keychain) AddCertificate(der []byte) error {
	err := failed(C.kc_certificate_add(k.ref, start(der), C.size_t(len(der))))
	if errors.Is(err, DuplicateItem) {
		return nil
	}
	return err
}

// RemoveCertificate takes one certificate away, and never its key. It is no
// error if it is not there.
func (k *Keychain) RemoveCertificate(der []byte) error {
	list, all, err := k.certificates()
	if err != nil {
		return err
	}
	defer C.kc_release(list)
	for i, other := range all {
		if string(other) == string(der) {
			return failed(C.kc_certificates_delete(k.ref, list, C.size_t(i)))
		}
	}
	return nil
}

// CheckIdentity succeeds only if the system finds the certificate's private
// key. [ItemNotFound] if it does not.
func (k *Keychain) CheckIdentity(der []byte) error {
	return failed(C.kc_identity_check(k.ref, start(der), C.size_t(len(der))))
}

// Prefer makes programs take this certificate for mail of the address. It is
// always written to the default keychain.
func (k *Keychain) Prefer(der []byte, address string, use Use) error {
	name := C.CString(address)
	defer C.free(unsafe.Pointer(name))
	return failed(C.kc_identity_prefer(k.ref, start(der), C.size_t(len(der)), name, C.int32_t(use)))
}

// Preferred gives the certificate (DER) that programs take for mail of the
// address: that of this use, or of any. [ItemNotFound] if there is none.
func (k *Keychain) Preferred(address string, use Use) ([]byte, error) {
	name := C.CString(address)
	defer C.free(unsafe.Pointer(name))
	var out C.kc_bytes
	err := failed(C.kc_identity_preferred(name, C.int32_t(use), &out))
	return taken(&out), err
}

// Unprefer takes all preferences of the address away; none is no error.
func (k *Keychain) Unprefer(address string) error {
	name := C.CString(address)
	defer C.free(unsafe.Pointer(name))
	return failed(C.kc_identity_unprefer(name))
}

// Key is a private key by reference; the key itself stays where it is.
type Key struct {
	mu  sync.Mutex
	ref C.kc_handle
}

// Close gives the reference back, once.
func (k *Key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	C.kc_release(k.ref)
	k.ref = 0
	return nil
}

// Extractable says whether the key could be taken out; true also if the system
// does not say. Only for keys of ours (keychain.h).
func (k *Key) Extractable() (bool, error) {
	extractable := C.bool(true)
	err := k.with(func() C.kc_status { return C.kc_key_extractable(k.ref, &extractable) })
	return bool(extractable), err
}

// Sign signs a digest. [Unimplemented] if this key cannot sign so.
func (k *Key) Sign(a Algorithm, digest []byte) ([]byte, error) {
	return k.make(func(out *C.kc_bytes) C.kc_status {
		return C.kc_sign(k.ref, C.int32_t(a), start(digest), C.size_t(len(digest)), out)
	})
}

// Decrypt decrypts. [Unimplemented] if this key cannot decrypt so.
func (k *Key) Decrypt(a Algorithm, text []byte) ([]byte, error) {
	return k.make(func(out *C.kc_bytes) C.kc_status {
		return C.kc_decrypt(k.ref, C.int32_t(a), start(text), C.size_t(len(text)), out)
	})
}

// Agree gives the raw secret shared with the owner of an uncompressed point on
// the curve of that size. [Unimplemented] if this key cannot agree.
func (k *Key) Agree(bits int, point []byte) ([]byte, error) {
	return k.make(func(out *C.kc_bytes) C.kc_status {
		return C.kc_agree(k.ref, C.int32_t(bits), start(point), C.size_t(len(point)), out)
	})
}

func (k *Key) make(do func(*C.kc_bytes) C.kc_status) ([]byte, error) {
	var out C.kc_bytes
	err := k.with(func() C.kc_status { return do(&out) })
	return taken(&out), err
}

// with holds the reference for as long as it is used: a closed one would end
// the process.
func (k *Key) with(do func() C.kc_status) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ref == 0 {
		return BadParameter
	}
	return failed(do())
}

func failed(status C.kc_status) error {
	if s := Status(status); s != 0 {
		return s
	}
	return nil
}

// start is where the bytes begin, nil if there are none: a slice that is empty
// but not nil has an address, too.
func start(b []byte) *C.uint8_t {
	if len(b) == 0 {
		return nil
	}
	return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b)))
}

// taken copies bytes that C handed out and frees them.
func taken(b *C.kc_bytes) []byte {
	if b.data == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(b.data))
	return C.GoBytes(unsafe.Pointer(b.data), C.int(b.len))
}
