package smime

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PrivateKey is a key that can open messages: an RSA key is a
// [crypto.Decrypter] too, an EC key an [Agreer].
type PrivateKey interface {
	Public() crypto.PublicKey
}

// Opened is a message that was decrypted.
type Opened struct {
	Content []byte
	// KeyAlgorithm and ContentAlgorithm are how it was encrypted, such as
	// "rsaes-pkcs1-v1_5" and "aes-256-cbc".
	KeyAlgorithm, ContentAlgorithm string
}

// Decrypt opens an EnvelopedData or AuthEnvelopedData that is encrypted to leaf,
// whose key it asks once. Errors wrap [ErrMalformed], [ErrUnsupported], [ErrKey],
// [ErrNotRecipient], [ErrDecrypt], or what the key said.
//
// Only an AuthEnvelopedData proves that nobody changed the content (CBC does
// not). Do not tell a sender which error it was.
func Decrypt(der []byte, leaf *x509.Certificate, key PrivateKey) (*Opened, error) {
	e, err := readEnvelope(der)
	if err != nil {
		return nil, err
	}
	r, err := e.recipientFor(leaf)
	if err != nil {
		return nil, err
	}
	if !sameKey(leaf.PublicKey, key.Public()) {
		return nil, ErrKey
	}
	alg, s, aad, err := e.readContent()
	if err != nil {
		return nil, err
	}
	c, err := cipherByOID(alg.oid)
	if err != nil {
		return nil, err
	}
	contentKey, err := r.contentKey(leaf, key, c.keySize)
	if err != nil {
		return nil, err
	}
	o := &Opened{KeyAlgorithm: r.name(), ContentAlgorithm: c.name}
	switch {
	case c.gcm != e.authenticated:
		return nil, fmt.Errorf("%w: %s in this structure", ErrUnsupported, c.name)
	case c.gcm:
		o.Content, err = c.openGCM(contentKey, alg.params, s, aad)
	default:
		o.Content, err = c.openCBC(contentKey, alg.params, s.ciphertext)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (e *envelope) recipientFor(leaf *x509.Certificate) (recipient, error) {
	for _, r := range e.recipients {
		if r.id.matches(leaf) {
			return r, nil
		}
	}
	return recipient{}, ErrNotRecipient
}

// readContent reads what follows the recipients.
func (e *envelope) readContent() (alg algorithm, s sealed, aad []byte, err error) {
	bad := fmt.Errorf("%w: encrypted content", ErrMalformed)
	in := e.content
	var body cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1ObjectIdentifier(&oid) {
		return alg, s, nil, bad
	}
	if alg, err = readAlgorithm(&body); err != nil {
		return alg, s, nil, err
	}
	if s.ciphertext, err = readCiphertext(&body); err != nil {
		return alg, s, nil, err
	}
	if !e.authenticated {
		return alg, s, nil, nil
	}
	var attributes, mac cryptobyte.String
	var has bool
	if !in.ReadOptionalASN1(&attributes, &has, context1Constructed) || !in.ReadASN1(&mac, cryptoasn1.OCTET_STRING) {
		return alg, s, nil, bad
	}
	if has { // what is authenticated is the SET, not its implicit tag (RFC 5083 §2.2)
		aad = append(appendHeader(nil, cryptoasn1.SET, len(attributes)), attributes...)
	}
	s.mac = mac
	return alg, s, aad, nil
}

// readCiphertext reads [0] IMPLICIT OCTET STRING, whole or in pieces: under an
// implicit tag normalize cannot know that the pieces are one string.
func readCiphertext(in *cryptobyte.String) ([]byte, error) {
	var whole, piece cryptobyte.String
	var tag cryptoasn1.Tag
	if !in.ReadAnyASN1(&whole, &tag) || tag != context0 && tag != context0Constructed {
		return nil, fmt.Errorf("%w: no encrypted content", ErrMalformed)
	}
	if tag == context0 {
		return whole, nil
	}
	out := make([]byte, 0, len(whole))
	for !whole.Empty() {
		if !whole.ReadASN1(&piece, cryptoasn1.OCTET_STRING) {
			return nil, fmt.Errorf("%w: encrypted content", ErrMalformed)
		}
		out = append(out, piece...)
	}
	return out, nil
}

// contentKey asks the private key for the content's key.
func (r recipient) contentKey(leaf *x509.Certificate, key PrivateKey, size int) ([]byte, error) {
	if r.agreement != nil {
		return r.agree(leaf, key, size)
	}
	decrypter, ok := key.(crypto.Decrypter)
	if _, isRSA := leaf.PublicKey.(*rsa.PublicKey); !ok || !isRSA {
		return nil, fmt.Errorf("%w: the key cannot decrypt", ErrUnsupported)
	}
	// A wrong padding gives a random key of the right size where the key knows the
	// option, so that nobody learns of it (RFC 3218 §2.3).
	var opts crypto.DecrypterOpts = &rsa.PKCS1v15DecryptOptions{SessionKeyLen: size} //nolint:staticcheck // what mail is encrypted by
	if !r.algorithm.oid.Equal(oidRSA) {
		oaep, err := readOAEP(r.algorithm)
		if err != nil {
			return nil, err
		}
		opts = oaep
	}
	contentKey, err := decrypter.Decrypt(rand.Reader, r.encrypted, opts)
	if err != nil {
		return nil, fmt.Errorf("decrypt content key: %w", err)
	}
	return sized(contentKey, size)
}

func sized(key []byte, size int) ([]byte, error) {
	if len(key) != size {
		return nil, fmt.Errorf("%w: content key", ErrDecrypt)
	}
	return key, nil
}

// agree does the recipient's part of RFC 5753 §3.1.3.
func (r recipient) agree(leaf *x509.Certificate, key PrivateKey, size int) ([]byte, error) {
	agreer, ok := key.(Agreer)
	public, isEC := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !isEC {
		return nil, fmt.Errorf("%w: the key cannot agree", ErrUnsupported)
	}
	if r.agreement.point == nil {
		return nil, fmt.Errorf("%w: key agreement without an ephemeral key", ErrUnsupported)
	}
	own, err := public.ECDH()
	if err != nil {
		return nil, fmt.Errorf("%w: curve", ErrUnsupported)
	}
	params := r.algorithm.params
	wrapAlgorithm, err := readAlgorithm(&params)
	if err != nil {
		return nil, err
	}
	wrap, err := keyWrapByOID(wrapAlgorithm.oid)
	if err != nil {
		return nil, err
	}
	// NewPublicKey refuses points that are not on the curve, which would leak the key.
	remote, err := own.Curve().NewPublicKey(r.agreement.point)
	if err != nil {
		return nil, fmt.Errorf("%w: originator's point", ErrMalformed)
	}
	secret, err := agreer.ECDH(remote)
	if err != nil {
		return nil, fmt.Errorf("agree on content key: %w", err)
	}
	kek, err := agreedKey(r.algorithm.oid, secret, wrapAlgorithm.raw, wrap.keySize, r.agreement.userMaterial)
	if err != nil {
		return nil, err
	}
	contentKey, err := wrap.unwrap(kek, r.encrypted)
	if err != nil {
		return nil, err
	}
	return sized(contentKey, size)
}
