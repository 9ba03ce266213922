package wincrypt

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// The magic numbers of bcrypt.h and wincrypt.h, as they lie in a blob.
const (
	magicRSA       = 0x31415352 // "RSA1"
	magicECDSAP256 = 0x31534345 // "ECS1"
	magicECDSAP384 = 0x33534345 // "ECS3"
	magicECDHP256  = 0x314B4345 // "ECK1"
	magicECDHP384  = 0x334B4345 // "ECK3"
)

var errBlob = errors.New("the blob is not laid out as documented")

// The blobs' fixed parts, in bytes.
const (
	rsaHeader  = 24 // BCRYPT_RSAKEY_BLOB
	capiHeader = 20 // BLOBHEADER and RSAPUBKEY
	eccHeader  = 8  // BCRYPT_ECCKEY_BLOB
)

// maxModulus bounds an RSA key, in bytes: twice the largest that we make.
const maxModulus = 1024

// ParseRSABlob reads CNG's RSAPUBLICBLOB: numbers big-endian behind a header of
// little-endian lengths (BCRYPT_RSAKEY_BLOB).
func ParseRSABlob(blob []byte) (*rsa.PublicKey, error) {
	if len(blob) < rsaHeader || binary.LittleEndian.Uint32(blob) != magicRSA {
		return nil, errBlob
	}
	exponent, modulus := uint64(binary.LittleEndian.Uint32(blob[8:])), uint64(binary.LittleEndian.Uint32(blob[12:]))
	rest := blob[rsaHeader:]
	if exponent > 4 || modulus > maxModulus || exponent+modulus != uint64(len(rest)) {
		return nil, errBlob
	}
	return rsaKey(rest[exponent:], new(big.Int).SetBytes(rest[:exponent]).Uint64())
}

// ParseCAPIBlob reads CryptoAPI's PUBLICKEYBLOB, whose modulus is
// little-endian (RSAPUBKEY).
func ParseCAPIBlob(blob []byte) (*rsa.PublicKey, error) {
	if len(blob) < capiHeader || binary.LittleEndian.Uint32(blob[8:]) != magicRSA {
		return nil, errBlob
	}
	bits, rest := binary.LittleEndian.Uint32(blob[12:]), blob[capiHeader:]
	if bits > maxModulus*8 || uint32(len(rest)) != (bits+7)/8 {
		return nil, errBlob
	}
	return rsaKey(Reversed(rest), uint64(binary.LittleEndian.Uint32(blob[16:])))
}

func rsaKey(modulus []byte, exponent uint64) (*rsa.PublicKey, error) {
	n := new(big.Int).SetBytes(modulus)
	if n.BitLen() < 1024 || exponent < 3 || exponent > 1<<31-1 {
		return nil, fmt.Errorf("%w: an RSA key of %d bits with exponent %d", errBlob, n.BitLen(), exponent)
	}
	return &rsa.PublicKey{N: n, E: int(exponent)}, nil
}

// ParseECBlob reads CNG's ECCPUBLICBLOB, of an ECDSA or an ECDH key. A point
// that is not on its curve is an error.
func ParseECBlob(blob []byte) (*ecdsa.PublicKey, error) {
	if len(blob) < eccHeader {
		return nil, errBlob
	}
	var curve elliptic.Curve
	switch binary.LittleEndian.Uint32(blob) {
	case magicECDSAP256, magicECDHP256:
		curve = elliptic.P256()
	case magicECDSAP384, magicECDHP384:
		curve = elliptic.P384()
	default:
		return nil, errBlob
	}
	size := curve.Params().BitSize / 8
	if binary.LittleEndian.Uint32(blob[4:]) != uint32(size) || len(blob) != eccHeader+2*size {
		return nil, errBlob
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, blob[eccHeader:]))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBlob, err)
	}
	return key, nil
}

// ECDHBlob is a remote key as NCryptImportKey takes it.
func ECDHBlob(remote *ecdh.PublicKey) ([]byte, error) {
	var magic uint32
	switch remote.Curve() {
	case ecdh.P256():
		magic = magicECDHP256
	case ecdh.P384():
		magic = magicECDHP384
	default:
		return nil, fmt.Errorf("no blob for a key on %v", remote.Curve())
	}
	point := remote.Bytes()[1:] // without the 4 of an uncompressed point
	blob := binary.LittleEndian.AppendUint32(nil, magic)
	blob = binary.LittleEndian.AppendUint32(blob, uint32(len(point)/2))
	return append(blob, point...), nil
}

// DER makes the signature that crypto/ecdsa and X.509 want of CNG's r and s,
// which have the same length.
func DER(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("an ECDSA signature of %d bytes", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// Reversed copies bytes back to front: CryptoAPI's numbers are little-endian,
// and so is a secret of CNG's raw key derivation.
func Reversed(b []byte) []byte {
	out := slices.Clone(b)
	slices.Reverse(out)
	return out
}
