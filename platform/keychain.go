package platform

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"smime-agent/platform/internal/security"
)

// The store over the keychain of macOS. All that is not a call of the system is
// in files for every system, so that the conformance suite can run it anywhere
// over a keychain in memory; only macOS has the real one.

// keychainItems are the private keys of a keychain ([security.Keychain]).
type keychainItems interface {
	Make(s security.Spec) (keychainRef, error)
	Items(tag string) ([]security.Item, error)
	Take(item security.Item) (keychainRef, error)
	Delete(item security.Item) error
}

// keychainCertificates are its certificates, as DER.
type keychainCertificates interface {
	Certificates() ([][]byte, error)
	AddCertificate(der []byte) error
	RemoveCertificate(der []byte) error
	CheckIdentity(der []byte) error
}

// keychainPreferences say which certificate programs take for an address.
type keychainPreferences interface {
	Prefer(der []byte, address string, use security.Use) error
	Preferred(address string, use security.Use) ([]byte, error)
	Unprefer(address string) error
}

// keychain is an open keychain.
type keychain interface {
	io.Closer
	Unlocked() (bool, error)
	keychainItems
	keychainCertificates
	Public(label []byte) ([]byte, error)
	keychainPreferences
}

// keychainRef is a private key in it.
type keychainRef interface {
	io.Closer
	Extractable() (bool, error)
	Sign(a security.Algorithm, digest []byte) ([]byte, error)
	Decrypt(a security.Algorithm, text []byte) ([]byte, error)
	Agree(bits int, point []byte) ([]byte, error)
}

// keychainStore opens the keychain anew for each task, so that a keychain that
// was locked, unlocked or exchanged meanwhile does no harm.
type keychainStore struct {
	open func() (keychain, error)
	// programs may use new keys beside this one.
	programs []string
}

const keychainName = "keychain"

// Info says "non-exportable": the key service refuses to wrap a key without the
// extractable flag before it asks anybody (securityd, ucsp_server_wrapKey), but
// software and the password of the keychain hold the key.
func (s *keychainStore) Info() StoreInfo {
	return StoreInfo{
		Name: keychainName, Protection: NonExportable, Algorithms: allAlgorithms(),
		Consumers: []string{"Apple Mail", "Outlook"}, CostlyKeys: true,
	}
}

// use runs a task on the open keychain.
func (s *keychainStore) use(ctx context.Context, what string, do func(k keychain) error) error {
	err := ctx.Err()
	if err == nil {
		err = s.onOpen(do)
	}
	if err != nil {
		return fmt.Errorf("%s in store %s: %w", what, keychainName, keychainSentinel(err))
	}
	return nil
}

func (s *keychainStore) onOpen(do func(k keychain) error) error { return onKeychain(s.open, do) }

// onKeychain runs a task on a keychain that is opened for it.
func onKeychain(open func() (keychain, error), do func(k keychain) error) error {
	k, err := open()
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return errors.Join(refusedBy(k, do(k)), k.Close())
}

// refusedBy tells a keychain that is locked from one that refuses. Where the
// system may ask nobody, it says errSecAuthFailed of both (Globals.cpp,
// keychainCredentials; securityd, establishOldSecrets).
func refusedBy(k keychain, err error) error {
	if !errors.Is(err, security.AuthFailed) {
		return err
	}
	if unlocked, e := k.Unlocked(); e != nil || unlocked {
		return err
	}
	return fmt.Errorf("%w: the keychain is locked: %w", ErrLocked, err)
}

// keychainSentinels say what the statuses mean here. No keychain at all counts
// as locked, since somebody must act and the keys are not to be given up. In a
// dark wake the Mac sleeps on for the person: nothing can be unlocked.
var keychainSentinels = map[security.Status]error{
	security.ItemNotFound:          ErrNotFound,
	security.DuplicateItem:         ErrExists,
	security.InteractionNotAllowed: ErrLocked,
	security.NoDefaultKeychain:     ErrLocked,
	security.NoSuchKeychain:        ErrLocked,
	security.NotAvailable:          ErrLocked,
	security.InteractionRequired:   ErrLocked,
	security.InDarkWake:            ErrLocked,
	security.AuthFailed:            ErrDenied,
	security.UserCanceled:          ErrDenied,
	security.WritePermission:       ErrDenied,
	security.ReadOnly:              ErrDenied,
	security.InsufficientClientID:  ErrDenied,
	security.InvalidACL:            ErrDenied,
	security.AuthorizationDenied:   ErrDenied,
	security.AuthorizationCanceled: ErrDenied,
	security.Unimplemented:         ErrUnsupported,

	security.AuthorizationInteractionNotAllowed: ErrLocked,
}

// keychainSentinel puts the sentinel beside the status, which stays in the chain.
func keychainSentinel(err error) error {
	for _, known := range []error{ErrNotFound, ErrExists, ErrLocked, ErrDenied, ErrUnsupported} {
		if errors.Is(err, known) {
			return err
		}
	}
	if status, ok := errors.AsType[security.Status](err); ok {
		if known, ok := keychainSentinels[status]; ok {
			return fmt.Errorf("%w: %w", known, err)
		}
	}
	return err
}

// keychainPair is a private key of ours with what belongs to it.
type keychainPair struct {
	security.Item
	id KeyID
	// public is nil for half a key.
	public crypto.PublicKey
	// whole says that the key bears its tag: it can be opened.
	whole bool
	// certs are the certificates for it.
	certs []*x509.Certificate
}

// keyName is what people read when a program wants to use the key. It ends
// with the ID: a crash can leave a key that has its name, but no tag yet.
func keyName(id KeyID, owner string) string {
	return strings.TrimSpace(keyNamePrefix+owner) + " (" + string(id) + ")"
}

const keyNamePrefix = "E-mail certificate "

// idOf says which of our IDs an item bears, by its tag or else by its name.
func idOf(item security.Item) KeyID {
	if item.Tag != "" {
		return KeyID(item.Tag)
	}
	name, found := strings.CutSuffix(item.Name, ")")
	i := strings.LastIndex(name, "(")
	if !found || i < 0 || !strings.HasPrefix(name, strings.TrimSpace(keyNamePrefix)) {
		return ""
	}
	return KeyID(name[i+1:])
}

// pairsOf finds what bears the ID, or all of ours if it is empty, and all
// certificates of the keychain.
func pairsOf(k keychain, id KeyID) ([]keychainPair, []*x509.Certificate, error) {
	items, err := k.Items("")
	if err != nil {
		return nil, nil, fmt.Errorf("list keys: %w", err)
	}
	certs, err := certificatesOf(k)
	if err != nil {
		return nil, nil, err
	}
	var pairs []keychainPair
	for _, item := range items {
		bears := idOf(item)
		if bears == "" || id != "" && bears != id || id == "" && !strings.HasPrefix(string(bears), OurPrefix) {
			continue
		}
		p := keychainPair{Item: item, id: bears}
		p.certs = slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return !item.Labels(c.PublicKey) })
		if p.public, err = publicOf(k, p); err != nil {
			return nil, nil, fmt.Errorf("read public key of %s: %w", bears, err)
		}
		p.whole = item.Tag != "" && p.public != nil
		pairs = append(pairs, p)
	}
	return pairs, certs, nil
}

// certificatesOf leaves out what other programs filed and Go cannot read.
func certificatesOf(k keychain) ([]*x509.Certificate, error) {
	all, err := k.Certificates()
	if err != nil {
		return nil, fmt.Errorf("list certificates: %w", err)
	}
	var certs []*x509.Certificate
	for _, der := range all {
		if c, err := x509.ParseCertificate(der); err == nil {
			certs = append(certs, c)
		}
	}
	return certs, nil
}

// publicOf reads the public key. Where the keychain has lost that part, a
// certificate still has it. nil if there is none; any other trouble is an
// error, so that no good key is taken for half a one.
func publicOf(k keychain, p keychainPair) (crypto.PublicKey, error) {
	if len(p.certs) > 0 {
		return p.certs[0].PublicKey, nil
	}
	if len(p.Label) == 0 {
		return nil, nil
	}
	raw, err := k.Public(p.Label)
	if errors.Is(err, security.ItemNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	public, err := security.ParsePublic(raw)
	if err != nil {
		return nil, err
	}
	if !p.Labels(public) {
		return nil, errors.New("the keychain gave another key's public part")
	}
	return public, nil
}

// theOne is the whole key of the ID. [ErrNotFound].
func theOne(k keychain, id KeyID) (keychainPair, []*x509.Certificate, error) {
	if id == "" {
		return keychainPair{}, nil, ErrNotFound
	}
	pairs, certs, err := pairsOf(k, id)
	if err != nil {
		return keychainPair{}, nil, err
	}
	pairs = slices.DeleteFunc(pairs, func(p keychainPair) bool { return !p.whole })
	switch len(pairs) {
	case 0:
		return keychainPair{}, nil, ErrNotFound
	case 1:
		return pairs[0], certs, nil
	default:
		return keychainPair{}, nil, fmt.Errorf("%d keys bear the ID %s", len(pairs), id)
	}
}
