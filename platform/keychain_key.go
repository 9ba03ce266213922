package platform

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"smime-agent/platform/internal/security"
)

// keychainKey uses a private key by reference.
type keychainKey struct {
	id     KeyID
	public crypto.PublicKey
	ref    keychainRef
	// open opens the keychain that the key is in.
	open func() (keychain, error)
}

type keychainRSA struct{ keychainKey }

type keychainEC struct{ keychainKey }

// newKey gives the reference back if it cannot use the key.
func (s *keychainStore) newKey(id KeyID, p keychainPair, ref keychainRef) (Key, error) {
	k := keychainKey{id: id, public: p.public, ref: ref, open: s.open}
	switch p.public.(type) {
	case *rsa.PublicKey:
		return keychainRSA{k}, nil
	case *ecdsa.PublicKey:
		return keychainEC{k}, nil
	default:
		return nil, errors.Join(fmt.Errorf("%w: a key of type %T", ErrUnsupported, p.public), ref.Close())
	}
}

func (k keychainKey) ID() KeyID                { return k.id }
func (k keychainKey) Public() crypto.PublicKey { return k.public }
func (k keychainKey) Close() error             { return k.ref.Close() }

func (k keychainKey) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, security.AuthFailed) {
		err = k.refused(err)
	}
	return fmt.Errorf("%s with key %s: %w", what, k.id, keychainSentinel(err))
}

// refused is as [refusedBy], with the keychain opened to look at it.
func (k keychainKey) refused(err error) error {
	var told error
	if e := onKeychain(k.open, func(c keychain) error { told = refusedBy(c, err); return nil }); e != nil {
		return err // what went wrong first is what counts
	}
	return told
}

// The signatures by hash. A missing one is 0, which no key can.
var (
	pkcs1Signatures = map[crypto.Hash]security.Algorithm{
		crypto.SHA256: security.SignPKCS1SHA256, crypto.SHA384: security.SignPKCS1SHA384, crypto.SHA512: security.SignPKCS1SHA512,
	}
	pssSignatures = map[crypto.Hash]security.Algorithm{
		crypto.SHA256: security.SignPSSSHA256, crypto.SHA384: security.SignPSSSHA384, crypto.SHA512: security.SignPSSSHA512,
	}
	ecdsaSignatures = map[crypto.Hash]security.Algorithm{
		crypto.SHA256: security.SignECDSASHA256, crypto.SHA384: security.SignECDSASHA384, crypto.SHA512: security.SignECDSASHA512,
	}
	oaepDecryptions = map[crypto.Hash]security.Algorithm{
		crypto.SHA1: security.DecryptOAEPSHA1, crypto.SHA256: security.DecryptOAEPSHA256,
		crypto.SHA384: security.DecryptOAEPSHA384, crypto.SHA512: security.DecryptOAEPSHA512,
	}
)

func (k keychainKey) sign(by map[crypto.Hash]security.Algorithm, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := opts.HashFunc()
	algorithm, ok := by[hash]
	if !ok {
		return nil, k.wrap("sign", fmt.Errorf("%w: signatures with hash %v", ErrUnsupported, hash))
	}
	if len(digest) != hash.Size() {
		return nil, k.wrap("sign", fmt.Errorf("a digest of %d bytes for %v", len(digest), hash))
	}
	signature, err := k.ref.Sign(algorithm, digest)
	return signature, k.wrap("sign", err)
}

// Sign makes a PKCS #1 v1.5 signature, or PSS if opts is *rsa.PSSOptions. The
// system's PSS has a salt as long as the hash, which is what S/MIME wants
// (RFC 4056 §2.2); another is refused.
func (k keychainRSA) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok {
		return k.sign(pkcs1Signatures, digest, opts)
	}
	if salt := pss.SaltLength; salt != rsa.PSSSaltLengthAuto && salt != rsa.PSSSaltLengthEqualsHash && salt != len(digest) {
		return nil, k.wrap("sign", fmt.Errorf("%w: a salt of %d bytes", ErrUnsupported, salt))
	}
	return k.sign(pssSignatures, digest, opts)
}

// Decrypt undoes PKCS #1 v1.5, or OAEP if opts is *rsa.OAEPOptions; the
// system's OAEP has one hash for both purposes and no label.
func (k keychainRSA) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	switch opts := opts.(type) {
	case nil:
		return k.decrypt(security.DecryptPKCS1, msg)
	case *rsa.PKCS1v15DecryptOptions: //nolint:staticcheck // what mail programs still send
		return k.sessionKey(msg, opts.SessionKeyLen)
	case *rsa.OAEPOptions:
		algorithm, ok := oaepDecryptions[opts.Hash]
		if ok && len(opts.Label) == 0 && (opts.MGFHash == 0 || opts.MGFHash == opts.Hash) {
			return k.decrypt(algorithm, msg)
		}
	}
	return nil, k.wrap("decrypt", fmt.Errorf("%w: options %T", ErrUnsupported, opts))
}

func (k keychainRSA) decrypt(a security.Algorithm, msg []byte) ([]byte, error) {
	plain, err := k.ref.Decrypt(a, msg)
	return plain, k.wrap("decrypt", err)
}

// sessionKey answers a random key of the wanted length for padding that does
// not fit, so that the answer is no oracle (RFC 3218 §2.3.2), as crypto/rsa
// does. Which status the system gives then is not documented: every one counts
// that does not say that the key cannot be used now.
func (k keychainRSA) sessionKey(msg []byte, length int) ([]byte, error) {
	if length <= 0 {
		return k.decrypt(security.DecryptPKCS1, msg)
	}
	key := make([]byte, length)
	if _, err := rand.Read(key); err != nil {
		return nil, k.wrap("decrypt", err)
	}
	plain, err := k.decrypt(security.DecryptPKCS1, msg)
	if errors.Is(err, ErrLocked) || errors.Is(err, ErrDenied) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if err == nil && len(plain) == length {
		subtle.ConstantTimeCopy(1, key, plain)
	}
	return key, nil
}

// Sign makes an ECDSA signature in DER.
func (k keychainEC) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(ecdsaSignatures, digest, opts)
}

// ECDH implements [Agreer].
func (k keychainEC) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	public, ok := k.public.(*ecdsa.PublicKey)
	if !ok {
		return nil, k.wrap("agree", fmt.Errorf("%w: %T", ErrUnsupported, k.public))
	}
	own, err := public.ECDH()
	if err != nil {
		return nil, k.wrap("agree", err)
	}
	// The system ends the process for a peer's key that is none (SecKey.h).
	if remote == nil || remote.Curve() != own.Curve() {
		return nil, k.wrap("agree", errors.New("the other key is on another curve"))
	}
	secret, err := k.ref.Agree(public.Curve.Params().BitSize, remote.Bytes())
	return secret, k.wrap("agree", err)
}
