package platform

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
)

type fileRSA struct {
	*rsa.PrivateKey
	id KeyID
}

type fileEC struct {
	*ecdsa.PrivateKey
	id KeyID
}

func newFileKey(id KeyID, key crypto.Signer) (Key, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return fileRSA{key, id}, nil
	case *ecdsa.PrivateKey:
		return fileEC{key, id}, nil
	}
	return nil, fmt.Errorf("%w: a key of type %T", ErrUnsupported, key)
}

func (k fileRSA) ID() KeyID    { return k.id }
func (k fileRSA) Close() error { return nil }

// Decrypt gives crypto/rsa the source of random bytes that a [crypto.Decrypter]
// of a token does not need, so callers may leave it out.
func (k fileRSA) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	return k.PrivateKey.Decrypt(rand.Reader, msg, opts)
}

// Sign is as Decrypt.
func (k fileRSA) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if pss, ok := opts.(*rsa.PSSOptions); ok && pss.SaltLength == rsa.PSSSaltLengthAuto {
		opts = &rsa.PSSOptions{Hash: pss.Hash, SaltLength: rsa.PSSSaltLengthEqualsHash} // RFC 4056 §2.2
	}
	return k.PrivateKey.Sign(rand.Reader, digest, opts)
}

func (k fileEC) ID() KeyID    { return k.id }
func (k fileEC) Close() error { return nil }

func (k fileEC) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.PrivateKey.Sign(rand.Reader, digest, opts)
}

// ECDH implements [Agreer].
func (k fileEC) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	own, err := k.PrivateKey.ECDH()
	if err != nil {
		return nil, fmt.Errorf("agree with key %s: %w", k.id, err)
	}
	secret, err := own.ECDH(remote)
	if err != nil {
		return nil, fmt.Errorf("agree with key %s: %w", k.id, err)
	}
	return secret, nil
}
