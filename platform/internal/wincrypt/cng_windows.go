package wincrypt

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// CNG's key storage providers that Windows brings along (ncrypt.h).
const (
	SoftwareProvider = "Microsoft Software Key Storage Provider"
	PlatformProvider = "Microsoft Platform Crypto Provider" // the TPM
)

// What a CNG key may be used for (ncrypt.h, NCRYPT_KEY_USAGE_PROPERTY).
const (
	MayDecrypt = 1
	MaySign    = 2
	MayAgree   = 4
)

const (
	ncryptSilent  = 0x40       // NCRYPT_SILENT_FLAG: never a dialog
	ncryptPersist = 0x80000000 // NCRYPT_PERSIST_FLAG: the property is kept with the key

	padPKCS1 = 2 // BCRYPT_PAD_PKCS1
	padOAEP  = 4 // BCRYPT_PAD_OAEP
	padPSS   = 8 // BCRYPT_PAD_PSS
)

// bufferSize holds any blob, signature or plain text of a key of up to 8192
// bits; one call with a buffer that is large enough spares the question for
// the size, which some providers answer wrongly.
const bufferSize = 8192

var (
	ncryptDLL = windows.NewLazySystemDLL("ncrypt.dll")

	procNCryptOpenStorageProvider = ncryptDLL.NewProc("NCryptOpenStorageProvider")
	procNCryptIsAlgSupported      = ncryptDLL.NewProc("NCryptIsAlgSupported")
	procNCryptCreatePersistedKey  = ncryptDLL.NewProc("NCryptCreatePersistedKey")
	procNCryptSetProperty         = ncryptDLL.NewProc("NCryptSetProperty")
	procNCryptGetProperty         = ncryptDLL.NewProc("NCryptGetProperty")
	procNCryptFinalizeKey         = ncryptDLL.NewProc("NCryptFinalizeKey")
	procNCryptOpenKey             = ncryptDLL.NewProc("NCryptOpenKey")
	procNCryptEnumKeys            = ncryptDLL.NewProc("NCryptEnumKeys")
	procNCryptFreeBuffer          = ncryptDLL.NewProc("NCryptFreeBuffer")
	procNCryptExportKey           = ncryptDLL.NewProc("NCryptExportKey")
	procNCryptImportKey           = ncryptDLL.NewProc("NCryptImportKey")
	procNCryptSignHash            = ncryptDLL.NewProc("NCryptSignHash")
	procNCryptDecrypt             = ncryptDLL.NewProc("NCryptDecrypt")
	procNCryptSecretAgreement     = ncryptDLL.NewProc("NCryptSecretAgreement")
	procNCryptDeriveKey           = ncryptDLL.NewProc("NCryptDeriveKey")
	procNCryptDeleteKey           = ncryptDLL.NewProc("NCryptDeleteKey")
	procNCryptFreeObject          = ncryptDLL.NewProc("NCryptFreeObject")
)

// Provider is an open key storage provider.
type Provider struct{ handle uintptr }

// OpenProvider opens one of Windows' key storage providers.
func OpenProvider(name string) (*Provider, error) {
	w, err := text(name)
	if err != nil {
		return nil, err
	}
	p := new(Provider)
	err = status(procNCryptOpenStorageProvider, uintptr(unsafe.Pointer(&p.handle)), uintptr(unsafe.Pointer(w)), 0)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Close gives the handle back.
func (p *Provider) Close() error { return status(procNCryptFreeObject, p.handle) }

// Supports says by nil that the provider knows an algorithm.
func (p *Provider) Supports(algorithm string) error {
	w, err := text(algorithm)
	if err != nil {
		return err
	}
	return status(procNCryptIsAlgSupported, p.handle, uintptr(unsafe.Pointer(w)), ncryptSilent)
}

// Text reads a property that is text.
func (p *Provider) Text(property string) (string, error) {
	buf := make([]uint16, 256)
	n, err := get(p.handle, property, unsafe.Pointer(&buf[0]), len(buf)*2)
	if err != nil {
		return "", err
	}
	return windows.UTF16ToString(buf[:n/2]), nil
}

// Number reads a property that is a DWORD, such as "Impl Type", whose lowest bit
// stands for hardware.
func (p *Provider) Number(property string) (uint32, error) { return number(p.handle, property) }

func number(handle uintptr, property string) (uint32, error) {
	v := new(uint32)
	n, err := get(handle, property, unsafe.Pointer(v), 4)
	if err == nil && n != 4 {
		err = errBlob
	}
	return *v, err
}

// get reads a property into memory of size bytes and says how many it has.
func get(handle uintptr, property string, into unsafe.Pointer, size int) (int, error) {
	w, err := text(property)
	if err != nil {
		return 0, err
	}
	n := new(uint32)
	err = status(procNCryptGetProperty, handle, uintptr(unsafe.Pointer(w)), uintptr(into), uintptr(size),
		uintptr(unsafe.Pointer(n)), ncryptSilent)
	if err != nil {
		return 0, err
	}
	if int64(*n) > int64(size) {
		return 0, &Error{Call: procNCryptGetProperty.Name, Code: codeMoreData}
	}
	return int(*n), nil
}

// keyName is NCryptKeyName.
type keyName struct {
	name, algorithm *uint16
	legacySpec      uint32
	flags           uint32
}

// Names lists the user's keys. The software provider also lists the keys of
// the older service providers, with their key spec (Microsoft Learn,
// NCryptEnumKeys); those are left out.
func (p *Provider) Names() ([]string, error) {
	var state uintptr
	defer func() { freeBuffer(state) }()
	var names []string
	for {
		var item *keyName
		err := status(procNCryptEnumKeys, p.handle, 0, uintptr(unsafe.Pointer(&item)), uintptr(unsafe.Pointer(&state)), ncryptSilent)
		// "Missing" may stand for a user who never had a key; not seen, for Wine lists nothing.
		if hasCode(err, codeNoMoreKeys) || len(names) == 0 && ClassOf(err) == Missing {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if item.legacySpec == 0 {
			names = append(names, windows.UTF16PtrToString(item.name))
		}
		freeBuffer(uintptr(unsafe.Pointer(item)))
	}
}

// freeBuffer gives back what CNG allocated; there is nothing to be done about
// a failure.
func freeBuffer(address uintptr) {
	if address != 0 {
		_ = status(procNCryptFreeBuffer, address)
	}
}

// CNGSpec is a key to make.
type CNGSpec struct {
	// Algorithm is "RSA", "ECDSA_P256", "ECDH_P256", …
	Algorithm string
	// Bits is the length of an RSA key.
	Bits uint32
	// Usage is of MayDecrypt, MaySign and MayAgree.
	Usage uint32
}

// Make makes a key of the user that may never be exported. A name that is
// taken is an error of class [Exists]: the flag that overwrites a key,
// NCRYPT_OVERWRITE_KEY_FLAG, is not used, because it would destroy an old
// decryption key. It must not be called while a service starts: the provider
// may wait for the service manager (Microsoft Learn, NCryptFinalizeKey).
func (p *Provider) Make(name string, spec CNGSpec) (*CNGKey, error) {
	k, err := p.begin(name, spec.Algorithm)
	if err != nil {
		return nil, err
	}
	err = k.finish(spec)
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// begin makes a key that is not kept until it is finished.
func (p *Provider) begin(name, algorithm string) (*CNGKey, error) {
	wideName, err := text(name)
	if err != nil {
		return nil, err
	}
	wideAlgorithm, err := text(algorithm)
	if err != nil {
		return nil, err
	}
	k := &CNGKey{provider: p.handle}
	err = status(procNCryptCreatePersistedKey, p.handle, uintptr(unsafe.Pointer(&k.handle)),
		uintptr(unsafe.Pointer(wideAlgorithm)), uintptr(unsafe.Pointer(wideName)), 0, 0)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (k *CNGKey) finish(spec CNGSpec) error {
	if spec.Bits != 0 {
		if err := k.set("Length", spec.Bits, 0); err != nil {
			return err
		}
	}
	if err := k.set("Export Policy", 0, ncryptPersist); err != nil {
		return err
	}
	if err := k.set("Key Usage", spec.Usage, ncryptPersist); err != nil {
		return err
	}
	return status(procNCryptFinalizeKey, k.handle, ncryptSilent)
}

// RSALengths says which lengths of RSA keys the provider makes, in bits. It
// asks an unfinished key, which leaves nothing behind.
func (p *Provider) RSALengths() (least, most, step uint32, err error) {
	k, err := p.begin("smime-lengths", "RSA")
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	var lengths [4]uint32 // NCRYPT_SUPPORTED_LENGTHS: min, max, increment, default
	n, err := get(k.handle, "Lengths", unsafe.Pointer(&lengths), int(unsafe.Sizeof(lengths)))
	if err == nil && n < 12 {
		err = errBlob
	}
	return lengths[0], lengths[1], lengths[2], err
}

// Open opens a key of the user. [Missing].
func (p *Provider) Open(name string) (*CNGKey, error) {
	w, err := text(name)
	if err != nil {
		return nil, err
	}
	k := &CNGKey{provider: p.handle}
	err = status(procNCryptOpenKey, p.handle, uintptr(unsafe.Pointer(&k.handle)), uintptr(unsafe.Pointer(w)), 0, ncryptSilent)
	if err != nil {
		return nil, err
	}
	return k, nil
}
