package wincrypt

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The service provider of CryptoAPI that we use, MS_ENH_RSA_AES_PROV, and its
// type. Microsoft calls the whole interface deprecated; it is the one whose
// keys Wine keeps.
const (
	CAPIProvider     = "Microsoft Enhanced RSA and AES Cryptographic Provider"
	CAPIProviderType = windows.PROV_RSA_AES
	// KeyExchange is AT_KEYEXCHANGE: the place in a container for the key that
	// signs and decrypts.
	KeyExchange = 1
)

// Hashes of CryptoAPI by their ALG_ID (wincrypt.h).
const (
	CAPISHA1   = 0x8004
	CAPISHA256 = 0x800c
	CAPISHA384 = 0x800d
	CAPISHA512 = 0x800e
)

const (
	publicKeyBlob  = 6
	privateKeyBlob = 7
	hashValue      = 2 // HP_HASHVAL
	permissions    = 6 // KP_PERMISSIONS
	mayExport      = 4 // CRYPT_EXPORT, a bit of the permissions
	enumContainers = 2 // PP_ENUMCONTAINERS
	enumFirst      = 1 // CRYPT_FIRST
	enumNext       = 2 // CRYPT_NEXT
)

var (
	advapiDLL = windows.NewLazySystemDLL("advapi32.dll")

	procCryptGenKey       = advapiDLL.NewProc("CryptGenKey")
	procCryptGetUserKey   = advapiDLL.NewProc("CryptGetUserKey")
	procCryptGetKeyParam  = advapiDLL.NewProc("CryptGetKeyParam")
	procCryptDestroyKey   = advapiDLL.NewProc("CryptDestroyKey")
	procCryptExportKey    = advapiDLL.NewProc("CryptExportKey")
	procCryptCreateHash   = advapiDLL.NewProc("CryptCreateHash")
	procCryptSetHashParam = advapiDLL.NewProc("CryptSetHashParam")
	procCryptSignHash     = advapiDLL.NewProc("CryptSignHashW")
	procCryptDestroyHash  = advapiDLL.NewProc("CryptDestroyHash")
	procCryptDecrypt      = advapiDLL.NewProc("CryptDecrypt")
	procCryptGetProvParam = advapiDLL.NewProc("CryptGetProvParam")
)

// acquire opens a container of the user; an empty name goes with
// CRYPT_VERIFYCONTEXT. It never shows a dialog.
func acquire(name string, flags uint32) (windows.Handle, error) {
	var container *uint16
	if name != "" {
		var err error
		if container, err = text(name); err != nil {
			return 0, err
		}
	}
	provider, err := text(CAPIProvider)
	if err != nil {
		return 0, err
	}
	var h windows.Handle
	err = windows.CryptAcquireContext(&h, container, provider, CAPIProviderType, flags|windows.CRYPT_SILENT)
	return h, failed("CryptAcquireContext", err)
}

func release(h windows.Handle) error {
	return failed("CryptReleaseContext", windows.CryptReleaseContext(h, 0))
}

// MakeContainer makes a container with an RSA key that cannot be exported.
// [Exists] if there is one of that name. Wine writes the key when the context
// is released, so a process that ends before leaves a container without a key.
func MakeContainer(name string, bits uint32) (err error) {
	h, err := acquire(name, windows.CRYPT_NEWKEYSET)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release(h)) }()
	var key uintptr
	// The upper half of the flags is the length; CRYPT_EXPORTABLE is not among the lower.
	if err := boolean(procCryptGenKey, uintptr(h), KeyExchange, uintptr(bits<<16), uintptr(unsafe.Pointer(&key))); err != nil {
		return err
	}
	return boolean(procCryptDestroyKey, key)
}

// DeleteContainer destroys a container with its keys. [Missing].
func DeleteContainer(name string) error {
	_, err := acquire(name, windows.CRYPT_DELETEKEYSET) // the handle is undefined then: nothing to release
	return err
}

// Containers lists the names of the user's containers.
func Containers() (names []string, err error) {
	h, err := acquire("", windows.CRYPT_VERIFYCONTEXT)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release(h)) }()
	for flag := uintptr(enumFirst); ; flag = enumNext {
		buf := make([]byte, 1024) // a name has at most MAX_PATH characters
		n := uint32(len(buf))
		err := boolean(procCryptGetProvParam, uintptr(h), enumContainers, uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)), flag)
		// "File not found" may stand for a user who never had a key; not seen under Wine.
		if hasCode(err, codeNoMoreItems) || len(names) == 0 && hasCode(err, codeFileNotFound) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		names = append(names, windows.ByteSliceToString(buf))
	}
}

// CAPIKey is the key of an open container.
type CAPIKey struct {
	context windows.Handle
	key     uintptr
}

// OpenContainer opens a container and its key. [Missing] if there is no such
// container, or no key in it.
func OpenContainer(name string) (*CAPIKey, error) {
	h, err := acquire(name, 0)
	if err != nil {
		return nil, err
	}
	k := &CAPIKey{context: h}
	if err := boolean(procCryptGetUserKey, uintptr(h), KeyExchange, uintptr(unsafe.Pointer(&k.key))); err != nil {
		return nil, errors.Join(err, release(h))
	}
	return k, nil
}

// Close gives the handles back; the key stays.
func (k *CAPIKey) Close() error {
	return errors.Join(boolean(procCryptDestroyKey, k.key), release(k.context))
}

// Public gives the public key as [ParseCAPIBlob] reads it.
func (k *CAPIKey) Public() ([]byte, error) { return k.export(publicKeyBlob) }

func (k *CAPIKey) export(layout uintptr) ([]byte, error) {
	buf := make([]byte, bufferSize)
	n := uint32(len(buf))
	err := boolean(procCryptExportKey, k.key, 0, layout, 0, uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)))
	return cut(buf, n, err)
}

// Exportable says whether the private key can be had. It asks for the key's
// permissions, where the provider knows them, and tries: an answer that is not
// a refusal counts as yes.
func (k *CAPIKey) Exportable() (bool, error) {
	var granted uint32
	n := uint32(4)
	if err := boolean(procCryptGetKeyParam, k.key, permissions, uintptr(unsafe.Pointer(&granted)), uintptr(unsafe.Pointer(&n)), 0); err != nil && ClassOf(err) != Unsupported {
		return true, err
	}
	if granted&mayExport != 0 {
		return true, nil
	}
	private, err := k.export(privateKeyBlob)
	clear(private)
	switch {
	case err == nil:
		return true, nil
	case hasCode(err, codeBadKeyState) || ClassOf(err) == Denied || ClassOf(err) == Unsupported:
		return false, nil
	}
	return true, err
}

// Sign makes a PKCS #1 v1.5 signature, big-endian.
func (k *CAPIKey) Sign(hash uint32, digest []byte) (signature []byte, err error) {
	var h uintptr
	if err := boolean(procCryptCreateHash, uintptr(k.context), uintptr(hash), 0, 0, uintptr(unsafe.Pointer(&h))); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, boolean(procCryptDestroyHash, h)) }()
	if err := boolean(procCryptSetHashParam, h, hashValue, uintptr(unsafe.Pointer(first(digest))), 0); err != nil {
		return nil, err
	}
	buf := make([]byte, bufferSize)
	n := uint32(len(buf))
	err = boolean(procCryptSignHash, h, KeyExchange, 0, 0, uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)))
	little, err := cut(buf, n, err)
	return Reversed(little), err
}

// Decrypt undoes PKCS #1 v1.5. The cipher text is big-endian, as everywhere
// but in CryptoAPI; the plain text is in its own order there too.
func (k *CAPIKey) Decrypt(msg []byte) ([]byte, error) {
	buf := Reversed(msg)
	n := uint32(len(buf))
	err := boolean(procCryptDecrypt, k.key, 0, 1, 0, uintptr(unsafe.Pointer(first(buf))), uintptr(unsafe.Pointer(&n)))
	return cut(buf, n, err)
}
