package platform

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"smime-agent/platform/internal/wincrypt"
)

// windowsKey is a key of the user. It holds no handle: every use opens the key
// again, so that nothing stays open in a helper that runs for weeks, and a TPM
// that was reset does no harm.
type windowsKey struct {
	store    *windowsStore
	provider windowsProvider
	id       KeyID
	public   crypto.PublicKey
}

type windowsRSA struct{ windowsKey }

type windowsEC struct{ windowsKey }

func (s *windowsStore) key(id KeyID, l located) Key {
	k := windowsKey{store: s, provider: l.provider, id: id, public: l.public}
	if _, ok := l.public.(*rsa.PublicKey); ok {
		return windowsRSA{k}
	}
	return windowsEC{k}
}

func (k windowsKey) ID() KeyID                { return k.id }
func (k windowsKey) Public() crypto.PublicKey { return k.public }
func (k windowsKey) Close() error             { return nil }

// use runs fn on the opened key.
func (k windowsKey) use(what string, fn func(windowsHandle) ([]byte, error)) ([]byte, error) {
	out, err := useKey(k.provider, string(k.id), fn)
	return out, k.store.wrap(err, what+" with key", k.id)
}

func useKey(p windowsProvider, name string, fn func(windowsHandle) ([]byte, error)) ([]byte, error) {
	h, err := p.open(name)
	if err != nil {
		return nil, err
	}
	out, err := fn(h)
	return out, errors.Join(err, h.Close())
}

// Sign makes a PKCS #1 v1.5 or, if opts is *rsa.PSSOptions and the provider
// can, a PSS signature; with an EC key an ECDSA signature in DER.
func (k windowsKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() == 0 || opts.HashFunc().Size() != len(digest) {
		return nil, fmt.Errorf("sign with key %s: %w: no digest of a named hash", k.id, ErrUnsupported)
	}
	return k.use("sign", func(h windowsHandle) ([]byte, error) { return h.sign(digest, opts) })
}

// Decrypt undoes PKCS #1 v1.5, or OAEP if opts is *rsa.OAEPOptions and the
// provider can.
func (k windowsRSA) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	switch opts := opts.(type) {
	case nil:
		return k.decrypt(msg, nil)
	case *rsa.PKCS1v15DecryptOptions: //nolint:staticcheck // what mail programs still send
		return k.sessionKey(msg, opts.SessionKeyLen)
	case *rsa.OAEPOptions:
		if opts.MGFHash != 0 && opts.MGFHash != opts.Hash {
			return nil, fmt.Errorf("decrypt with key %s: %w: two hashes in one OAEP", k.id, ErrUnsupported)
		}
		return k.decrypt(msg, opts)
	}
	return nil, fmt.Errorf("decrypt with key %s: %w: options %T", k.id, ErrUnsupported, opts)
}

func (k windowsRSA) decrypt(msg []byte, oaep *rsa.OAEPOptions) ([]byte, error) {
	return k.use("decrypt", func(h windowsHandle) ([]byte, error) { return h.decrypt(msg, oaep) })
}

// sessionKey answers a random key of the wanted length for whatever does not
// decrypt, so that the answer is no oracle (RFC 3218 §2.3.2), as crypto/rsa
// does. Providers have several codes for bad padding and the TPM its own, so
// only what says that the key cannot be used at all is an error.
func (k windowsRSA) sessionKey(msg []byte, length int) ([]byte, error) {
	if length <= 0 {
		return k.decrypt(msg, nil)
	}
	key := make([]byte, length)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("decrypt with key %s: %w", k.id, err)
	}
	plain, err := k.decrypt(msg, nil)
	for _, e := range []error{ErrNotFound, ErrLocked, ErrDenied, ErrUnsupported} {
		if errors.Is(err, e) {
			return nil, err
		}
	}
	if err == nil && len(plain) == length {
		subtle.ConstantTimeCopy(1, key, plain)
	}
	return key, nil
}

// ECDH implements [Agreer].
func (k windowsEC) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	blob, err := remoteBlob(k.public, remote)
	if err != nil {
		return nil, fmt.Errorf("agree with key %s: %w", k.id, err)
	}
	return k.use("agree", func(h windowsHandle) ([]byte, error) { return h.agree(blob) })
}

func remoteBlob(public crypto.PublicKey, remote *ecdh.PublicKey) ([]byte, error) {
	own, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: %T", ErrUnsupported, public)
	}
	curve, err := own.ECDH()
	if err != nil {
		return nil, err
	}
	if remote == nil || remote.Curve() != curve.Curve() {
		return nil, errors.New("the other key is on another curve")
	}
	return wincrypt.ECDHBlob(remote)
}

// serves tries a fresh key: what it signs verifies, and what is encrypted for
// it comes back. A provider may promise what its chip cannot do, and an ECDH
// key that cannot sign or a secret in the wrong byte order would only be
// noticed with the first mail.
func serves(p windowsProvider, id KeyID, public crypto.PublicKey, spec KeySpec) error {
	_, err := useKey(p, string(id), func(h windowsHandle) ([]byte, error) {
		switch public := public.(type) {
		case *rsa.PublicKey:
			return nil, servesRSA(h, public, spec)
		case *ecdsa.PublicKey:
			return nil, servesEC(h, public, spec)
		}
		return nil, fmt.Errorf("a key of type %T", public)
	})
	if err != nil {
		return fmt.Errorf("%w: the fresh key does not serve: %w", ErrUnsupported, err)
	}
	return nil
}

func servesRSA(h windowsHandle, public *rsa.PublicKey, spec KeySpec) error {
	digest := sha256.Sum256([]byte("platform: does this key serve?"))
	signature, err := h.sign(digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil || !spec.Decrypt {
		return err
	}
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, public, digest[:]) //nolint:staticcheck // what mail programs still send
	if err != nil {
		return err
	}
	plain, err := h.decrypt(sealed, nil)
	if err == nil && subtle.ConstantTimeCompare(plain, digest[:]) != 1 {
		err = errors.New("it decrypts something else")
	}
	return err
}

func servesEC(h windowsHandle, public *ecdsa.PublicKey, spec KeySpec) error {
	digest := sha256.Sum256([]byte("platform: does this key serve?"))
	signature, err := h.sign(digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(public, digest[:], signature) {
		return errors.New("its signature does not verify")
	}
	if !spec.Decrypt {
		return nil
	}
	own, err := public.ECDH()
	if err != nil {
		return err
	}
	other, err := own.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := other.ECDH(own)
	if err != nil {
		return err
	}
	blob, err := remoteBlob(public, other.PublicKey())
	if err != nil {
		return err
	}
	secret, err := h.agree(blob)
	if err == nil && subtle.ConstantTimeCompare(secret, want) != 1 {
		err = errors.New("it agrees on another secret")
	}
	return err
}
