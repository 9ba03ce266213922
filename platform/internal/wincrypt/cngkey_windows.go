package wincrypt

import (
	"errors"
	"unsafe"
)

// CNGKey is an open key of a [Provider], which must stay open as long.
type CNGKey struct{ provider, handle uintptr }

// Close gives the handle back; the key stays.
func (k *CNGKey) Close() error { return status(procNCryptFreeObject, k.handle) }

// Delete destroys the key. The handle is gone if that succeeds, and must still
// be closed if it fails (Microsoft Learn, NCryptDeleteKey).
func (k *CNGKey) Delete() error { return status(procNCryptDeleteKey, k.handle, ncryptSilent) }

func (k *CNGKey) set(property string, value, flags uint32) error {
	w, err := text(property)
	if err != nil {
		return err
	}
	v := &value
	return status(procNCryptSetProperty, k.handle, uintptr(unsafe.Pointer(w)), uintptr(unsafe.Pointer(v)), 4, uintptr(flags))
}

// Number reads a property that is a DWORD, such as "Export Policy" (0: never)
// or "Key Usage".
func (k *CNGKey) Number(property string) (uint32, error) { return number(k.handle, property) }

// Export gives the key in the layout of that name, e.g. "RSAPUBLICBLOB".
func (k *CNGKey) Export(layout string) ([]byte, error) {
	w, err := text(layout)
	if err != nil {
		return nil, err
	}
	buf, n := make([]byte, bufferSize), new(uint32)
	err = status(procNCryptExportKey, k.handle, 0, uintptr(unsafe.Pointer(w)), 0,
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), uintptr(unsafe.Pointer(n)), ncryptSilent)
	return cut(buf, *n, err)
}

func cut(buf []byte, n uint32, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if int64(n) > int64(len(buf)) {
		return nil, errBlob
	}
	return buf[:n], nil
}

// pkcs1Padding is BCRYPT_PKCS1_PADDING_INFO.
type pkcs1Padding struct{ hash *uint16 }

// pssPadding is BCRYPT_PSS_PADDING_INFO.
type pssPadding struct {
	hash *uint16
	salt uint32
}

// oaepPadding is BCRYPT_OAEP_PADDING_INFO.
type oaepPadding struct {
	hash     *uint16
	label    *byte
	labelLen uint32
}

// SignPKCS1 signs a digest of the hash of that name, "SHA256" and so on.
func (k *CNGKey) SignPKCS1(hash string, digest []byte) ([]byte, error) {
	w, err := text(hash)
	if err != nil {
		return nil, err
	}
	return k.sign(digest, unsafe.Pointer(&pkcs1Padding{w}), padPKCS1)
}

// SignPSS is as SignPKCS1, with a salt of that many bytes.
func (k *CNGKey) SignPSS(hash string, salt int, digest []byte) ([]byte, error) {
	w, err := text(hash)
	if err != nil {
		return nil, err
	}
	return k.sign(digest, unsafe.Pointer(&pssPadding{w, uint32(salt)}), padPSS)
}

// SignEC signs a digest, which must not be longer than the curve's order, and
// gives r and s in one piece.
func (k *CNGKey) SignEC(digest []byte) ([]byte, error) { return k.sign(digest, nil, 0) }

func (k *CNGKey) sign(digest []byte, padding unsafe.Pointer, flags uint32) ([]byte, error) {
	buf, n := make([]byte, bufferSize), new(uint32)
	err := status(procNCryptSignHash, k.handle, uintptr(padding), uintptr(unsafe.Pointer(first(digest))), uintptr(len(digest)),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), uintptr(unsafe.Pointer(n)), uintptr(flags|ncryptSilent))
	return cut(buf, *n, err)
}

// DecryptPKCS1 undoes PKCS #1 v1.5.
func (k *CNGKey) DecryptPKCS1(msg []byte) ([]byte, error) { return k.decrypt(msg, nil, padPKCS1) }

// DecryptOAEP undoes OAEP, whose mask function uses the same hash.
func (k *CNGKey) DecryptOAEP(hash string, label, msg []byte) ([]byte, error) {
	w, err := text(hash)
	if err != nil {
		return nil, err
	}
	return k.decrypt(msg, unsafe.Pointer(&oaepPadding{w, first(label), uint32(len(label))}), padOAEP)
}

func (k *CNGKey) decrypt(msg []byte, padding unsafe.Pointer, flags uint32) ([]byte, error) {
	buf, n := make([]byte, bufferSize), new(uint32)
	err := status(procNCryptDecrypt, k.handle, uintptr(unsafe.Pointer(first(msg))), uintptr(len(msg)), uintptr(padding),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), uintptr(unsafe.Pointer(n)), uintptr(flags|ncryptSilent))
	return cut(buf, *n, err)
}

// Agree gives the x-coordinate of the common point, big-endian, for a remote
// key from [ECDHBlob]. The raw secret came with Windows 10; it is little-endian
// (Microsoft Learn, BCryptDeriveKey, BCRYPT_KDF_RAW_SECRET).
func (k *CNGKey) Agree(remote []byte) (secret []byte, err error) {
	layout, err := text("ECCPUBLICBLOB")
	if err != nil {
		return nil, err
	}
	var other, agreed uintptr
	err = status(procNCryptImportKey, k.provider, 0, uintptr(unsafe.Pointer(layout)), 0, uintptr(unsafe.Pointer(&other)),
		uintptr(unsafe.Pointer(first(remote))), uintptr(len(remote)), ncryptSilent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, status(procNCryptFreeObject, other)) }()
	err = status(procNCryptSecretAgreement, k.handle, other, uintptr(unsafe.Pointer(&agreed)), ncryptSilent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, status(procNCryptFreeObject, agreed)) }()
	return derive(agreed)
}

func derive(agreed uintptr) ([]byte, error) {
	raw, err := text("TRUNCATE") // BCRYPT_KDF_RAW_SECRET
	if err != nil {
		return nil, err
	}
	buf, n := make([]byte, 256), new(uint32)
	err = status(procNCryptDeriveKey, agreed, uintptr(unsafe.Pointer(raw)), 0, uintptr(unsafe.Pointer(&buf[0])),
		uintptr(len(buf)), uintptr(unsafe.Pointer(n)), 0)
	little, err := cut(buf, *n, err)
	return Reversed(little), err
}
