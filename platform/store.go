package platform

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/x509"
	"time"
)

// KeyID names a key in its store: the enrollment's ID, given before the key is
// made, so that a retry finds what a crash left behind.
type KeyID string

// KeyAlgorithm is a kind of key.
type KeyAlgorithm string

// The kinds of keys that the S/MIME Baseline Requirements (§6.1.5) allow and
// that mail programs know.
const (
	RSA2048 KeyAlgorithm = "rsa-2048"
	RSA3072 KeyAlgorithm = "rsa-3072"
	RSA4096 KeyAlgorithm = "rsa-4096"
	P256    KeyAlgorithm = "p-256"
	P384    KeyAlgorithm = "p-384"
)

// Protection is what a store truthfully claims of its keys.
type Protection string

// From strongest to weakest.
const (
	// Hardware: the key lives in a TPM, a smart card or an enclave.
	Hardware Protection = "hardware"
	// NonExportable: the system refuses to hand the key out, but software holds it.
	NonExportable Protection = "non-exportable"
	// Software: whoever has the user's rights (and password) can copy the key. NSS
	// keys are of this kind, whatever CKA_EXTRACTABLE says.
	Software Protection = "software"
)

// KeySpec is the key to make.
type KeySpec struct {
	Algorithm KeyAlgorithm
	// Sign and Decrypt say what it shall be able to do; for EC keys Decrypt
	// means key agreement.
	Sign, Decrypt bool
	// Owner is whom the key is for, as people know it: a mailbox. Systems show it
	// when a program wants to use the key. It may be empty.
	Owner string
}

// Key is a private key that stays in its store. RSA keys are [crypto.Decrypter]
// too (PKCS #1 v1.5, and OAEP where the store can), EC keys are [Agreer].
// It is safe for use by one goroutine at a time.
type Key interface {
	crypto.Signer
	ID() KeyID
	// Close gives the handle back; the key stays.
	Close() error
}

// Agreer is an EC key that agrees on a shared secret (the x-coordinate,
// SEC 1 §3.3.1), as *ecdh.PrivateKey does.
type Agreer interface {
	ECDH(remote *ecdh.PublicKey) ([]byte, error)
}

// KeyInfo is a key of ours as a listing finds it.
type KeyInfo struct {
	ID KeyID
	// Public is nil for half a key that a crash left behind and that cannot be
	// made whole.
	Public crypto.PublicKey
	// Certified says that a certificate for this key lies in the store.
	Certified bool
	// Created is zero where the store does not know.
	Created time.Time
}

// KeyStore makes and keeps private keys. A private key never leaves the store
// that made it.
type KeyStore interface {
	// Create makes a key. [ErrExists] if the ID is taken by a whole key; what is
	// left of a broken attempt under the same ID is cleared away first.
	Create(ctx context.Context, id KeyID, spec KeySpec) (Key, error)
	// Open finds a key. [ErrNotFound], [ErrLocked].
	Open(ctx context.Context, id KeyID) (Key, error)
	// Delete removes a key that never got a certificate. [ErrDenied] once a
	// certificate is tied to it; nil if it is not there.
	Delete(ctx context.Context, id KeyID) error
	// Keys lists the keys that are named as ours (see [OurPrefix]).
	Keys(ctx context.Context) ([]KeyInfo, error)
}

// OurPrefix begins every KeyID that the agent gives; a store's other keys are
// nobody's business.
const OurPrefix = "smime-"

// CertStore keeps certificates where mail programs look.
type CertStore interface {
	// Install files the leaf beside its key and its issuers for path building.
	// Installing twice is no error. [ErrNotFound] if the key is not there;
	// an error if the leaf is not for the key.
	Install(ctx context.Context, id KeyID, chain []*x509.Certificate) error
	// Find gives the newest leaf for the key, then the issuers that the store
	// has, in order. [ErrNotFound].
	Find(ctx context.Context, id KeyID) ([]*x509.Certificate, error)
	// Remove takes a certificate away and leaves the key. nil if it is not there.
	Remove(ctx context.Context, cert *x509.Certificate) error
}

// Truster is a CertStore that can make an anchor trusted for e-mail (and for
// nothing else) for this user.
type Truster interface {
	Trust(ctx context.Context, anchor *x509.Certificate) error
}

// Holder is a store that can say which certificates have their private keys in it,
// whoever made them: the person may have got one elsewhere, before the agent came.
type Holder interface {
	// Held lists them, in no order. It asks nobody for a PIN.
	Held(ctx context.Context) ([]*x509.Certificate, error)
}

// StoreInfo is what a store says of itself.
type StoreInfo struct {
	// Name is stable and unique for the user: "nss:default", "nss:tb-abcd.default",
	// "pkcs11:TOKEN", "file", "windows", "keychain".
	Name       string
	Protection Protection
	Algorithms []KeyAlgorithm
	// Consumers are the programs that find the certificate there, e.g. "Thunderbird".
	Consumers []string
	// CostlyKeys says that each new key costs the person something: the system
	// asks once for each mail program whether it may use the key. Where policy does
	// not say, a renewal then keeps the key.
	CostlyKeys bool
}

// Store is one place of one user that keeps keys with their certificates.
type Store interface {
	Info() StoreInfo
	KeyStore
	CertStore
}

// Module is a PKCS #11 module that policy allows to load.
type Module struct {
	// Path is absolute.
	Path string
	// TokenLabel picks the token; empty takes the only one.
	TokenLabel string
}

// PINFunc asks the user for a PIN or password of a store. [ErrLocked] if he
// does not give one. retry says that the last answer was wrong.
type PINFunc func(ctx context.Context, store string, retry bool) (string, error)

// StoreOptions says where to look for stores.
type StoreOptions struct {
	// Home is the user's home folder; empty means that of this process.
	Home    string
	Modules []Module
	// PIN is nil where nobody can be asked.
	PIN PINFunc
}

// Stores finds the user's stores, best first: the first is what "auto" means.
// Stores that exist but cannot be used now are left out of the list and joined
// in the error, beside the list of those that can.
func Stores(ctx context.Context, o StoreOptions) ([]Store, error) { return stores(ctx, o) }
