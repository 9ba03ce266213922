package security

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // names keys in the keychain, protects nothing
	"crypto/x509"
	"fmt"
)

// Labels says whether a public key is that of the item: the label of a private
// key is the SHA-1 of its public key, by which the system itself finds a
// certificate's key (SecIdentity.cpp).
func (i Item) Labels(public crypto.PublicKey) bool {
	var raw []byte
	switch key := public.(type) {
	case *rsa.PublicKey:
		raw = x509.MarshalPKCS1PublicKey(key)
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			return false
		}
		raw = point
	default:
		return false
	}
	sum := sha1.Sum(raw) //nolint:gosec // see the import
	return bytes.Equal(sum[:], i.Label)
}

// ParsePublic reads a public key as [Keychain.Public] gives it.
func ParsePublic(raw []byte) (crypto.PublicKey, error) {
	// An uncompressed point begins with 4 (SEC 1 §2.3.3), DER of PKCS #1 with a
	// sequence, 0x30.
	if len(raw) == 0 || raw[0] != 4 {
		key, err := x509.ParsePKCS1PublicKey(raw)
		if err != nil {
			return nil, fmt.Errorf("public key of %d bytes: %w", len(raw), err)
		}
		return key, nil
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if len(raw) == 1+2*((curve.Params().BitSize+7)/8) {
			return ecdsa.ParseUncompressedPublicKey(curve, raw)
		}
	}
	return nil, fmt.Errorf("a point of %d bytes is on no curve that is known here", len(raw))
}
