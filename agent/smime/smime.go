// Package smime makes and opens CMS messages (RFC 5652, RFC 8551) with a key
// that stays in its store: it asks a key for one signature, one decryption or
// one key agreement, and does everything around that itself. It logs nothing,
// and no error of it contains a part of a message.
package smime

import (
	"crypto/ecdh"
	"errors"
	"fmt"
)

// What can be wrong with a message. Errors of this package wrap one of these,
// or the error of the key that was asked.
var (
	// ErrMalformed says that the bytes are not the CMS structure they should be.
	ErrMalformed = errors.New("malformed message")
	// ErrCutOff is an [ErrMalformed] whose bytes end too early: with more of them
	// it may be right.
	ErrCutOff = fmt.Errorf("%w: cut off", ErrMalformed)
	// ErrUnsupported says that the message uses what this package does not know,
	// or refuses as too weak.
	ErrUnsupported = errors.New("unsupported algorithm or structure")
	// ErrSignature says that the signature or the content was changed.
	ErrSignature = errors.New("signature does not match")
	// ErrMailbox says that the certificate is for another mailbox.
	ErrMailbox = errors.New("certificate is for another mailbox")
	// ErrChain says that no valid path for e-mail leads to an anchor.
	ErrChain = errors.New("no valid chain for e-mail")
	// ErrUsage says that the certificate is not for this use of its key.
	ErrUsage = errors.New("certificate does not allow this use")
	// ErrKey says that the key is not the certificate's.
	ErrKey = errors.New("key does not belong to the certificate")
	// ErrNotRecipient says that the message is not encrypted to the certificate.
	ErrNotRecipient = errors.New("not encrypted to this certificate")
	// ErrDecrypt says that the content could not be decrypted: it was changed.
	ErrDecrypt = errors.New("content cannot be decrypted")
)

// Agreer is an EC key that agrees on a shared secret (the x-coordinate, SEC 1
// §3.3.1). [*ecdh.PrivateKey] is one.
type Agreer interface {
	ECDH(remote *ecdh.PublicKey) ([]byte, error)
}

// maxMessage bounds what is looked at. Mail servers take far less.
const maxMessage = 128 << 20
