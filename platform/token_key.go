//go:build cgo || windows

package platform

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"smime-agent/platform/internal/pkcs11"
)

// tokenKey is a key in a token. It holds no handle: every use finds the object
// again, so that a pulled token or a restarted module does no harm.
type tokenKey struct {
	store  *tokenStore
	id     KeyID
	public crypto.PublicKey
}

type tokenRSA struct{ tokenKey }

type tokenEC struct{ tokenKey }

func (s *tokenStore) key(id KeyID, public crypto.PublicKey) Key {
	k := tokenKey{store: s, id: id, public: public}
	if _, ok := public.(*rsa.PublicKey); ok {
		return tokenRSA{k}
	}
	return tokenEC{k}
}

func (k tokenKey) ID() KeyID                { return k.id }
func (k tokenKey) Public() crypto.PublicKey { return k.public }
func (k tokenKey) Close() error             { return nil }

// use runs fn on the private object. crypto.Signer knows no context; a PIN
// dialog has its own time limit.
func (k tokenKey) use(what string, fn func(*pkcs11.Session, pkcs11.Object) error) error {
	a := access{private: true}
	return k.store.use(context.Background(), a, what+" with key "+string(k.id), func(ss *pkcs11.Session) error {
		o, err := k.find(ss)
		if err != nil {
			return err
		}
		return fn(ss, o)
	})
}

func (k tokenKey) find(ss *pkcs11.Session) (pkcs11.Object, error) {
	halves, err := ss.KeyHalves(string(k.id))
	if err != nil {
		return 0, err
	}
	id, err := pkcs11.KeyID(k.public)
	if err != nil {
		return 0, err
	}
	for _, h := range halves {
		if h.Private && (samePublic(k.public, h.Public) || bytes.Equal(h.ID, id)) {
			return h.Object, nil
		}
		// Not mended yet: the public half shows which private one is meant.
		if !h.Private && samePublic(k.public, h.Public) {
			for _, other := range halves {
				if other.Private && belong(other, h) {
					return other.Object, nil
				}
			}
		}
	}
	return 0, ErrNotFound
}

// Sign makes a PKCS #1 v1.5 signature, or PSS if opts is *rsa.PSSOptions.
func (k tokenRSA) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = k.use("sign", func(ss *pkcs11.Session, o pkcs11.Object) error {
		pss, ok := opts.(*rsa.PSSOptions)
		if !ok {
			signature, err = ss.SignPKCS1(o, opts.HashFunc(), digest)
			return err
		}
		salt := pss.SaltLength
		if salt == rsa.PSSSaltLengthAuto || salt == rsa.PSSSaltLengthEqualsHash {
			salt = opts.HashFunc().Size() // what S/MIME wants (RFC 4056 §2.2)
		}
		signature, err = ss.SignPSS(o, opts.HashFunc(), salt, digest)
		return err
	})
	return signature, err
}

// Decrypt undoes PKCS #1 v1.5, or OAEP if opts is *rsa.OAEPOptions and the
// token knows it.
func (k tokenRSA) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	switch opts := opts.(type) {
	case nil:
		return k.decrypt(func(ss *pkcs11.Session, o pkcs11.Object) ([]byte, error) { return ss.DecryptPKCS1(o, msg) })
	case *rsa.PKCS1v15DecryptOptions: //nolint:staticcheck // what mail programs still send
		return k.sessionKey(msg, opts.SessionKeyLen)
	case *rsa.OAEPOptions:
		mask := opts.MGFHash
		if mask == 0 {
			mask = opts.Hash
		}
		return k.decrypt(func(ss *pkcs11.Session, o pkcs11.Object) ([]byte, error) {
			return ss.DecryptOAEP(o, opts.Hash, mask, opts.Label, msg)
		})
	}
	return nil, fmt.Errorf("decrypt with key %s: %w: options %T", k.id, ErrUnsupported, opts)
}

func (k tokenRSA) decrypt(fn func(*pkcs11.Session, pkcs11.Object) ([]byte, error)) (plain []byte, err error) {
	err = k.use("decrypt", func(ss *pkcs11.Session, o pkcs11.Object) error {
		plain, err = fn(ss, o)
		return err
	})
	return plain, err
}

// sessionKey answers a random key of the wanted length for padding that does
// not fit, so that the answer is no oracle (RFC 3218 §2.3.2), as crypto/rsa
// does. What the token's time tells is beyond us.
func (k tokenRSA) sessionKey(msg []byte, length int) ([]byte, error) {
	pkcs1 := func(ss *pkcs11.Session, o pkcs11.Object) ([]byte, error) { return ss.DecryptPKCS1(o, msg) }
	if length <= 0 {
		return k.decrypt(pkcs1)
	}
	key := make([]byte, length)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("decrypt with key %s: %w", k.id, err)
	}
	plain, err := k.decrypt(pkcs1)
	if pkcs11.ClassOf(err) == pkcs11.Unreadable {
		return key, nil
	}
	if err != nil {
		return nil, err
	}
	if len(plain) == length {
		subtle.ConstantTimeCopy(1, key, plain)
	}
	return key, nil
}

// Sign makes an ECDSA signature in DER.
func (k tokenEC) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) (signature []byte, err error) {
	public, ok := k.public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("sign with key %s: %w: %T", k.id, ErrUnsupported, k.public)
	}
	err = k.use("sign", func(ss *pkcs11.Session, o pkcs11.Object) error {
		signature, err = ss.SignECDSA(o, public.Curve.Params().BitSize/8, digest)
		return err
	})
	return signature, err
}

// ECDH implements [Agreer].
func (k tokenEC) ECDH(remote *ecdh.PublicKey) (secret []byte, err error) {
	public, ok := k.public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("agree with key %s: %w: %T", k.id, ErrUnsupported, k.public)
	}
	own, err := public.ECDH()
	if err != nil {
		return nil, fmt.Errorf("agree with key %s: %w", k.id, err)
	}
	if remote == nil || remote.Curve() != own.Curve() {
		return nil, fmt.Errorf("agree with key %s: %w", k.id, errors.New("the other key is on another curve"))
	}
	err = k.use("agree", func(ss *pkcs11.Session, o pkcs11.Object) error {
		secret, err = ss.Derive(o, remote)
		return err
	})
	return secret, err
}
