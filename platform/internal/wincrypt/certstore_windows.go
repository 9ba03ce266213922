package wincrypt

import (
	"bytes"
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The stores of the user, and what lies in them.
const (
	My   = "MY"   // certificates with a key
	CA   = "CA"   // issuers
	Root = "Root" // anchors; the machine's are seen in it too
)

const (
	encoding = windows.X509_ASN_ENCODING | windows.PKCS_7_ASN_ENCODING

	keyProvInfoProperty  = 2  // CERT_KEY_PROV_INFO_PROP_ID
	usageProperty        = 9  // CERT_ENHKEY_USAGE_PROP_ID
	friendlyNameProperty = 11 // CERT_FRIENDLY_NAME_PROP_ID
	archivedProperty     = 19 // CERT_ARCHIVED_PROP_ID

	commit      = 3 // CERT_STORE_CTRL_COMMIT
	commitForce = 1 // CERT_STORE_CTRL_COMMIT_FORCE_FLAG
)

var (
	cryptDLL = windows.NewLazySystemDLL("crypt32.dll")

	procCertControlStore                  = cryptDLL.NewProc("CertControlStore")
	procCertSetCertificateContextProperty = cryptDLL.NewProc("CertSetCertificateContextProperty")
	procCertGetCertificateContextProperty = cryptDLL.NewProc("CertGetCertificateContextProperty")
)

// CertStore is an open certificate store of the user, or of the machine.
type CertStore struct {
	handle  windows.Handle
	changed bool
}

// OpenCertStore opens one of the user's stores. Archived certificates are seen.
func OpenCertStore(name string) (*CertStore, error) {
	return openCertStore(windows.CERT_SYSTEM_STORE_CURRENT_USER, name)
}

// OpenMachineStore opens one of the machine's stores, which only the system and
// administrators may change.
func OpenMachineStore(name string) (*CertStore, error) {
	return openCertStore(windows.CERT_SYSTEM_STORE_LOCAL_MACHINE, name)
}

func openCertStore(whose uint32, name string) (*CertStore, error) {
	w, err := text(name)
	if err != nil {
		return nil, err
	}
	h, err := windows.CertOpenStore(windows.CERT_STORE_PROV_SYSTEM_W, 0, 0,
		whose|windows.CERT_STORE_ENUM_ARCHIVED_FLAG|windows.CERT_STORE_MAXIMUM_ALLOWED_FLAG, uintptr(unsafe.Pointer(w)))
	if err != nil {
		return nil, failed("CertOpenStore", err)
	}
	return &CertStore{handle: h}, nil
}

// Close gives the handle back. Wine writes a store only at a commit or here,
// and here not after a deletion, so a changed store is committed first.
// Windows writes at once and documents the commit as ignored: its failure says
// nothing, and a look through a store opened afresh decides.
func (s *CertStore) Close() error {
	if s.changed {
		_ = boolean(procCertControlStore, uintptr(s.handle), commitForce, commit, 0)
	}
	return failed("CertCloseStore", windows.CertCloseStore(s.handle, 0))
}

// Filed is a certificate in a store.
type Filed struct {
	// DER is whatever lies there; nobody has judged it.
	DER []byte
	// Key is zero where the certificate names none.
	Key KeyLocation
	// Name is the friendly name.
	Name string
	// Usage is what the store's owner restricts the certificate to, beside what the
	// certificate says: an ExtKeyUsageSyntax in DER (RFC 5280 §4.2.1.12); nil for
	// no restriction.
	Usage []byte
	// Archived ones are shown to no mail program.
	Archived bool
}

// List gives all certificates of the store. What cannot be read of one entry
// is left empty in it: one broken entry must not hide the others.
func (s *CertStore) List() ([]Filed, error) {
	var all []Filed
	err := s.each(func(c *windows.CertContext) (bool, error) {
		f := Filed{DER: encoded(c)}
		if value := property(c, keyProvInfoProperty); value != nil {
			f.Key = value.location()
		}
		if value := property(c, friendlyNameProperty); value != nil {
			f.Name = value.text(0)
		}
		if value := property(c, usageProperty); value != nil {
			f.Usage = value.bytes()
		}
		f.Archived = hasProperty(c, archivedProperty)
		all = append(all, f)
		return true, nil
	})
	return all, err
}

func encoded(c *windows.CertContext) []byte {
	return bytes.Clone(unsafe.Slice(c.EncodedCert, c.Length))
}

// each calls fn with each certificate until it answers false. The enumeration
// frees each context when it goes on to the next; the last one is freed here.
func (s *CertStore) each(fn func(*windows.CertContext) (bool, error)) error {
	var c *windows.CertContext
	for {
		next, err := windows.CertEnumCertificatesInStore(s.handle, c)
		if next == nil {
			err = failed("CertEnumCertificatesInStore", err)
			if hasCode(err, codeCryptNotFound) || hasCode(err, codeNoMoreFiles) {
				return nil
			}
			return err
		}
		c = next
		if more, err := fn(c); err != nil || !more {
			return errors.Join(err, failed("CertFreeCertificateContext", windows.CertFreeCertificateContext(c)))
		}
	}
}

// Add files a certificate with its key and its name, which travel with it, in
// the place of the same certificate without.
func (s *CertStore) Add(der []byte, key KeyLocation, name string) error {
	c, err := newContext(der)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CertFreeCertificateContext(c) }()
	if err := setKey(c, key); err != nil {
		return err
	}
	if err := setName(c, name); err != nil {
		return err
	}
	return s.add(c, windows.CERT_STORE_ADD_REPLACE_EXISTING)
}

// AddIssuer files a certificate without a key, unless it is there.
func (s *CertStore) AddIssuer(der []byte) error {
	c, err := newContext(der)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CertFreeCertificateContext(c) }()
	return s.add(c, windows.CERT_STORE_ADD_USE_EXISTING)
}

// emailOnly is an ExtKeyUsageSyntax of id-kp-emailProtection, and of
// id-kp-OCSPSigning, without which the CA's own answers about revocation would
// not count (RFC 5280 §4.2.1.12, RFC 6960 §4.2.2.2).
var emailOnly = []byte{
	0x30, 0x14,
	0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x04,
	0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09,
}

// AddAnchor files a root with a name, restricted to e-mail, unless it is there.
func (s *CertStore) AddAnchor(der []byte, name string) error {
	c, err := newContext(der)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CertFreeCertificateContext(c) }()
	if err := setName(c, name); err != nil {
		return err
	}
	if err := setBlob(c, usageProperty, emailOnly); err != nil {
		return err
	}
	return s.add(c, windows.CERT_STORE_ADD_USE_EXISTING)
}

func newContext(der []byte) (*windows.CertContext, error) {
	c, err := windows.CertCreateCertificateContext(encoding, first(der), uint32(len(der)))
	if c == nil {
		return nil, failed("CertCreateCertificateContext", err)
	}
	return c, nil
}

func (s *CertStore) add(c *windows.CertContext, how uint32) error {
	s.changed = true
	return failed("CertAddCertificateContextToStore", windows.CertAddCertificateContextToStore(s.handle, c, how, nil))
}

// Remove takes a certificate away; nil if it is not there.
func (s *CertStore) Remove(der []byte) error {
	return s.each(func(c *windows.CertContext) (bool, error) {
		if !bytes.Equal(encoded(c), der) {
			return true, nil
		}
		s.changed = true
		// The deletion frees what it gets, the enumeration keeps its own.
		twin := windows.CertDuplicateCertificateContext(c)
		return false, failed("CertDeleteCertificateFromStore", windows.CertDeleteCertificateFromStore(twin))
	})
}

// CheckBinding asks as mail programs do whether the store leads from the
// certificate to its key, without a dialog. Windows compares the two public
// keys; Wine does not.
func (s *CertStore) CheckBinding(der []byte) error {
	found := false
	err := s.each(func(c *windows.CertContext) (bool, error) {
		if !bytes.Equal(encoded(c), der) {
			return true, nil
		}
		found = true
		return false, acquireKey(c)
	})
	if err == nil && !found {
		return &Error{Call: "CertEnumCertificatesInStore", Code: codeCryptNotFound}
	}
	return err
}

func acquireKey(c *windows.CertContext) error {
	var h windows.Handle
	var spec uint32
	var ours bool
	err := windows.CryptAcquireCertificatePrivateKey(c,
		windows.CRYPT_ACQUIRE_ALLOW_NCRYPT_KEY_FLAG|windows.CRYPT_ACQUIRE_SILENT_FLAG|windows.CRYPT_ACQUIRE_COMPARE_KEY_FLAG,
		nil, &h, &spec, &ours)
	switch {
	case err != nil:
		return failed("CryptAcquireCertificatePrivateKey", err)
	case !ours:
		return nil
	case spec == windows.CERT_NCRYPT_KEY_SPEC:
		return status(procNCryptFreeObject, uintptr(h))
	}
	return release(h)
}
