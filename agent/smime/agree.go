package smime

import (
	"crypto/sha1" //nolint:gosec // key derivation of older senders; no signature rests on it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"fmt"
	"hash"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// derivation is a key agreement scheme of RFC 5753 §7.1.4. On the NIST curves
// the cofactor is 1, so that standard and cofactor DH are the same.
type derivation struct {
	standard, cofactor asn1.ObjectIdentifier
	name               string
	newHash            func() hash.Hash
}

func derivationByOID(oid asn1.ObjectIdentifier) (derivation, error) {
	for _, d := range []derivation{
		{oidStdDHSHA1, oidCofactorDHSHA1, "ecdh-sha1kdf", sha1.New},
		{oidStdDHSHA224, oidCofactorDHSHA224, "ecdh-sha224kdf", sha256.New224},
		{oidStdDHSHA256, oidCofactorDHSHA256, "ecdh-sha256kdf", sha256.New},
		{oidStdDHSHA384, oidCofactorDHSHA384, "ecdh-sha384kdf", sha512.New384},
		{oidStdDHSHA512, oidCofactorDHSHA512, "ecdh-sha512kdf", sha512.New},
	} {
		if oid.Equal(d.standard) || oid.Equal(d.cofactor) {
			return d, nil
		}
	}
	return derivation{}, fmt.Errorf("%w: key agreement %s", ErrUnsupported, oid)
}

// keyWrap is a way to wrap the content's key.
type keyWrap struct {
	oid     asn1.ObjectIdentifier
	name    string
	keySize int
	unwrap  func(kek, wrapped []byte) ([]byte, error)
}

func keyWrapByOID(oid asn1.ObjectIdentifier) (keyWrap, error) {
	for _, w := range []keyWrap{
		{oidAES128Wrap, "aes128-wrap", 16, unwrapAES},
		{oidAES192Wrap, "aes192-wrap", 24, unwrapAES},
		{oidAES256Wrap, "aes256-wrap", 32, unwrapAES},
		{oidDES3Wrap, "3des-wrap", 24, unwrapDES3},
	} {
		if oid.Equal(w.oid) {
			return w, nil
		}
	}
	return keyWrap{}, fmt.Errorf("%w: key wrap %s", ErrUnsupported, oid)
}

// agreedKey derives the key that wraps the content's key: X9.63 over the shared
// secret and ECC-CMS-SharedInfo (RFC 5753 §7.2). wrapAlgorithm is the
// AlgorithmIdentifier byte for byte as the message has it.
func agreedKey(oid asn1.ObjectIdentifier, secret, wrapAlgorithm []byte, size int, userMaterial []byte) ([]byte, error) {
	d, err := derivationByOID(oid)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(wrapAlgorithm)
		if userMaterial != nil {
			b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) { b.AddASN1OctetString(userMaterial) })
		}
		b.AddASN1(context2Constructed, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptoasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddUint32(uint32(size * 8)) })
		})
	})
	info, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return deriveKey(d.newHash, secret, info, size), nil
}

func derAlgorithm(oid asn1.ObjectIdentifier) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	addAlgorithm(b, oid)
	return b.Bytes()
}
