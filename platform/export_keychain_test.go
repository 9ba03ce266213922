package platform

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"slices"
	"sync"

	"smime-agent/platform/internal/security"
)

// MemoryKeychain is a keychain in memory that behaves as the sources of the real
// one say, with faults to plant.
type MemoryKeychain struct {
	// Fail, if set, may refuse a call of the system by its name in package security.
	Fail func(call string) error
	// Extractable makes keys that can be taken out.
	Extractable bool
	// Locked says so when it is asked; what it refuses, Fail says.
	Locked bool

	mu      sync.Mutex
	keys    []*memoryKey
	publics map[string][]byte
	certs   [][]byte
	// Preferred is the certificate by use and address.
	Preferred map[security.Use]map[string][]byte
	// Programs are those that the last key was made for; Open counts what is open.
	Programs []string
	Open     int
}

type memoryKey struct {
	item    security.Item
	private crypto.Signer
}

// Store is the store over this keychain.
func (m *MemoryKeychain) Store() Store {
	return &keychainStore{programs: []string{"/Mail.app"}, open: func() (keychain, error) {
		if err := m.call("Open"); err != nil {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.Open++
		return openMemory{m}, nil
	}}
}

// LoseTag plants what a crash leaves before the tag is set.
func (m *MemoryKeychain) LoseTag(id KeyID) {
	for _, k := range m.keys {
		if k.item.Tag == string(id) {
			k.item.Tag = ""
		}
	}
}

// LosePublic takes the public part of a key away.
func (m *MemoryKeychain) LosePublic(id KeyID) {
	for _, k := range m.keys {
		if k.item.Tag == string(id) {
			delete(m.publics, string(k.item.Label))
		}
	}
}

// Names are those of all private keys, as people see them.
func (m *MemoryKeychain) Names() []string {
	var names []string
	for _, k := range m.keys {
		names = append(names, k.item.Name)
	}
	return names
}

func (m *MemoryKeychain) call(name string) error {
	if m.Fail == nil {
		return nil
	}
	return m.Fail(name)
}

type openMemory struct{ *MemoryKeychain }

func (m openMemory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Open--
	return nil
}

func (m openMemory) Unlocked() (bool, error) { return !m.Locked, m.call("Unlocked") }

func (m openMemory) Make(s security.Spec) (keychainRef, error) {
	if err := m.call("Make"); err != nil {
		return nil, err
	}
	private, public, err := memoryPair(s)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	label := sha1.Sum(public)
	k := &memoryKey{item: security.Item{Tag: s.Tag, Name: s.Name, Label: label[:]}, private: private}
	m.keys = append(m.keys, k)
	if m.publics == nil {
		m.publics = map[string][]byte{}
	}
	m.publics[string(label[:])] = public
	m.Programs = s.Programs
	return memoryRef{m.MemoryKeychain, k}, nil
}

func memoryPair(s security.Spec) (crypto.Signer, []byte, error) {
	if !s.EC {
		key, err := rsa.GenerateKey(rand.Reader, s.Bits)
		if err != nil {
			return nil, nil, err
		}
		return key, x509.MarshalPKCS1PublicKey(&key.PublicKey), nil
	}
	key, err := ecdsa.GenerateKey(map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384()}[s.Bits], rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	point, err := key.PublicKey.Bytes()
	return key, point, err
}

func (m openMemory) Items(tag string) ([]security.Item, error) {
	if err := m.call("Items"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var items []security.Item
	for _, k := range m.keys {
		if tag == "" || k.item.Tag == tag {
			items = append(items, k.item)
		}
	}
	return items, nil
}

func (m openMemory) find(item security.Item) int {
	return slices.IndexFunc(m.keys, func(k *memoryKey) bool {
		return k.item.Tag == item.Tag && k.item.Name == item.Name && bytes.Equal(k.item.Label, item.Label)
	})
}

func (m openMemory) Take(item security.Item) (keychainRef, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(item)
	if i < 0 {
		return nil, security.ItemNotFound
	}
	return memoryRef{m.MemoryKeychain, m.keys[i]}, nil
}

func (m openMemory) Delete(item security.Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(item)
	if i < 0 {
		return security.ItemNotFound
	}
	delete(m.publics, string(item.Label))
	m.keys = slices.Delete(m.keys, i, i+1)
	return nil
}

func (m openMemory) Public(label []byte) ([]byte, error) {
	if err := m.call("Public"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if raw, ok := m.publics[string(label)]; ok {
		return raw, nil
	}
	return nil, security.ItemNotFound
}

func (m openMemory) Certificates() ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.certs), m.call("Certificates")
}

func (m openMemory) AddCertificate(der []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.certs, func(c []byte) bool { return bytes.Equal(c, der) }) {
		m.certs = append(m.certs, der)
	}
	return m.call("AddCertificate")
}

func (m openMemory) RemoveCertificate(der []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.certs = slices.DeleteFunc(m.certs, func(c []byte) bool { return bytes.Equal(c, der) })
	return m.call("RemoveCertificate")
}

func (m openMemory) CheckIdentity(der []byte) error {
	if err := m.call("CheckIdentity"); err != nil {
		return err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return security.Undecodable
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.keys, func(k *memoryKey) bool { return k.item.Labels(c.PublicKey) }) {
		return security.ItemNotFound
	}
	return nil
}

func (m openMemory) Prefer(der []byte, address string, use security.Use) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.MemoryKeychain.Preferred == nil {
		m.MemoryKeychain.Preferred = map[security.Use]map[string][]byte{security.ForEncryption: {}, security.ForSigning: {}}
	}
	m.MemoryKeychain.Preferred[use][address] = der
	return m.call("Prefer")
}

func (m openMemory) Preferred(address string, use security.Use) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	der, ok := m.MemoryKeychain.Preferred[use][address]
	if !ok {
		return nil, security.ItemNotFound
	}
	return der, m.call("Preferred")
}

func (m openMemory) Unprefer(address string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, of := range m.MemoryKeychain.Preferred {
		delete(of, address)
	}
	return m.call("Unprefer")
}

// AppleMail is Mail over this keychain.
func (m *MemoryKeychain) AppleMail(dir string) MailProgram {
	return appleMail{dir: dir, open: func() (keychain, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.Open++
		return openMemory{m}, nil
	}}
}

// AddForeign plants a certificate that has no key of ours.
func (m *MemoryKeychain) AddForeign(der []byte) { m.certs = append(m.certs, der) }

// OutlookMac is Outlook for Mac, installed there.
func OutlookMac(app string) MailProgram { return outlookMac{app} }

type memoryRef struct {
	m *MemoryKeychain
	k *memoryKey
}

func (r memoryRef) Close() error               { return nil }
func (r memoryRef) Extractable() (bool, error) { return r.m.Extractable, r.m.call("Extractable") }

var memoryHashes = map[security.Algorithm]crypto.Hash{
	security.SignPKCS1SHA256: crypto.SHA256, security.SignPKCS1SHA384: crypto.SHA384, security.SignPKCS1SHA512: crypto.SHA512,
	security.SignPSSSHA256: crypto.SHA256, security.SignPSSSHA384: crypto.SHA384, security.SignPSSSHA512: crypto.SHA512,
	security.SignECDSASHA256: crypto.SHA256, security.SignECDSASHA384: crypto.SHA384, security.SignECDSASHA512: crypto.SHA512,
	security.DecryptOAEPSHA1: crypto.SHA1, security.DecryptOAEPSHA256: crypto.SHA256,
	security.DecryptOAEPSHA384: crypto.SHA384, security.DecryptOAEPSHA512: crypto.SHA512,
}

func (r memoryRef) Sign(a security.Algorithm, digest []byte) ([]byte, error) {
	if err := r.m.call("Sign"); err != nil {
		return nil, err
	}
	_, isRSA := r.k.private.(*rsa.PrivateKey)
	if isRSA == (a >= security.SignECDSASHA256 && a <= security.SignECDSASHA512) || a > security.SignECDSASHA512 {
		return nil, security.Unimplemented
	}
	hash := memoryHashes[a]
	if a >= security.SignPSSSHA256 && a <= security.SignPSSSHA512 {
		return r.k.private.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: hash.Size(), Hash: hash})
	}
	return r.k.private.Sign(rand.Reader, digest, hash)
}

func (r memoryRef) Decrypt(a security.Algorithm, text []byte) ([]byte, error) {
	if err := r.m.call("Decrypt"); err != nil {
		return nil, err
	}
	key, ok := r.k.private.(*rsa.PrivateKey)
	if !ok || a < security.DecryptPKCS1 {
		return nil, security.Unimplemented
	}
	var opts crypto.DecrypterOpts
	if a != security.DecryptPKCS1 {
		opts = &rsa.OAEPOptions{Hash: memoryHashes[a]}
	}
	plain, err := key.Decrypt(rand.Reader, text, opts)
	if err != nil {
		return nil, security.BadParameter
	}
	return plain, nil
}

func (r memoryRef) Agree(_ int, point []byte) ([]byte, error) {
	key, ok := r.k.private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, security.Unimplemented
	}
	own, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	other, err := own.Curve().NewPublicKey(point)
	if err != nil {
		return nil, security.BadParameter
	}
	return own.ECDH(other)
}

// AddressBook is the address book over this keychain.
func (m *MemoryKeychain) AddressBook(list string) AddressBook {
	s, ok := m.Store().(*keychainStore)
	if !ok {
		return nil
	}
	return &keychainAddressBook{open: s.open, list: list}
}

// File puts a certificate there as a person does; Filed lists all.
func (m *MemoryKeychain) File(der []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.certs = append(m.certs, der)
}

// Filed lists all certificates.
func (m *MemoryKeychain) Filed() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([][]byte(nil), m.certs...)
}
