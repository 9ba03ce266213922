//go:build cgo || windows

package pkcs11

import (
	"crypto"
	"crypto/ecdh"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"

	p11 "github.com/miekg/pkcs11"
)

// digestInfo is what stands before the digest in a PKCS #1 v1.5 signature
// (RFC 8017 §9.2 note 1).
var digestInfo = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// hashes are a hash's mechanism and its mask generation function.
type hashCodes struct{ mechanism, mgf uint }

var hashes = map[crypto.Hash]hashCodes{
	crypto.SHA1:   {p11.CKM_SHA_1, p11.CKG_MGF1_SHA1},
	crypto.SHA256: {p11.CKM_SHA256, p11.CKG_MGF1_SHA256},
	crypto.SHA384: {p11.CKM_SHA384, p11.CKG_MGF1_SHA384},
	crypto.SHA512: {p11.CKM_SHA512, p11.CKG_MGF1_SHA512},
}

// unsupported is the code for what the interface has no name for.
const unsupported = Code(p11.CKR_MECHANISM_PARAM_INVALID)

// SignPKCS1 makes an RSASSA-PKCS1-v1_5 signature over a digest.
func (s *Session) SignPKCS1(o Object, hash crypto.Hash, digest []byte) ([]byte, error) {
	prefix, ok := digestInfo[hash]
	if !ok || len(digest) != hash.Size() {
		return nil, fmt.Errorf("sign digest of %d bytes with %v: %w", len(digest), hash, unsupported)
	}
	return s.sign(o, newMechanism(p11.CKM_RSA_PKCS, nil), slices.Concat(prefix, digest))
}

// SignPSS makes an RSASSA-PSS signature over a digest, with the same hash in
// the mask and salt octets of salt.
func (s *Session) SignPSS(o Object, hash crypto.Hash, salt int, digest []byte) ([]byte, error) {
	codes, ok := hashes[hash]
	if !ok || len(digest) != hash.Size() || salt < 0 {
		return nil, fmt.Errorf("sign digest of %d bytes with %v: %w", len(digest), hash, unsupported)
	}
	params := newPSSParams(codes.mechanism, codes.mgf, uint(salt))
	return s.sign(o, newMechanism(p11.CKM_RSA_PKCS_PSS, params), digest)
}

// SignECDSA signs a digest, cut to size (the order's octets) where it is
// longer (FIPS 186-5 §6.4.1), and gives the signature as DER.
func (s *Session) SignECDSA(o Object, size int, digest []byte) ([]byte, error) {
	raw, err := s.sign(o, newMechanism(p11.CKM_ECDSA, nil), digest[:min(size, len(digest))])
	if err != nil {
		return nil, err
	}
	if len(raw) != 2*size {
		return nil, fmt.Errorf("sign: %d octets of signature, %d expected", len(raw), 2*size)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])})
}

func (s *Session) sign(o Object, m *mechanism, data []byte) ([]byte, error) {
	if err := s.c.SignInit(s.h, []*mechanism{m}, objectHandle(o)); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	signature, err := s.c.Sign(s.h, data)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return signature, nil
}

// DecryptPKCS1 undoes RSAES-PKCS1-v1_5.
func (s *Session) DecryptPKCS1(o Object, data []byte) ([]byte, error) {
	return s.decrypt(o, newMechanism(p11.CKM_RSA_PKCS, nil), data)
}

// DecryptOAEP undoes RSAES-OAEP.
func (s *Session) DecryptOAEP(o Object, hash, mask crypto.Hash, label, data []byte) ([]byte, error) {
	h, ok1 := hashes[hash]
	m, ok2 := hashes[mask]
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("decrypt OAEP with %v: %w", hash, unsupported)
	}
	params := newOAEPParams(h.mechanism, m.mgf, p11.CKZ_DATA_SPECIFIED, label)
	plain, err := s.decrypt(o, newMechanism(p11.CKM_RSA_PKCS_OAEP, params), data)
	if is(err, p11.CKR_ARGUMENTS_BAD) { // SoftHSM 2.6.1 for any hash but SHA-1
		return nil, fmt.Errorf("decrypt OAEP with %v: %w: %w", hash, unsupported, err)
	}
	return plain, err
}

func (s *Session) decrypt(o Object, m *mechanism, data []byte) ([]byte, error) {
	if err := s.c.DecryptInit(s.h, []*mechanism{m}, objectHandle(o)); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	plain, err := s.c.Decrypt(s.h, data)
	if is(err, p11.CKR_GENERAL_ERROR) || is(err, p11.CKR_FUNCTION_FAILED) {
		// What SoftHSM and the TPM stack say of a padding that does not fit.
		return nil, fmt.Errorf("decrypt: %w: %w", Code(p11.CKR_ENCRYPTED_DATA_INVALID), err)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plain, nil
}

// Derive agrees on a shared secret and gives its octets. The secret is derived
// as a session object that may be read: the caller wants to see it.
func (s *Session) Derive(o Object, remote *ecdh.PublicKey) ([]byte, error) {
	point := remote.Bytes()
	size := (len(point) - 1) / 2
	secret, err := s.derive(o, point, size)
	if is(err, p11.CKR_MECHANISM_PARAM_INVALID) || is(err, p11.CKR_ARGUMENTS_BAD) {
		// PKCS #11 v2.40 §2.3.8 allows the point bare or as OCTET STRING, and modules differ.
		wrapped, e := asn1.Marshal(point)
		if e != nil {
			return nil, fmt.Errorf("encode point: %w", e)
		}
		secret, err = s.derive(o, wrapped, size)
	}
	if err != nil {
		return nil, fmt.Errorf("agree on secret: %w", err)
	}
	value, err := s.get(secret, p11.CKA_VALUE)
	if e := s.Destroy(secret); e != nil && err == nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("agree on secret: %w", err)
	}
	if len(value) != size {
		return nil, fmt.Errorf("agree on secret: %d octets, %d expected", len(value), size)
	}
	return value, nil
}

func (s *Session) derive(o Object, point []byte, size int) (Object, error) {
	params := newECDH1Params(p11.CKD_NULL, nil, point)
	h, err := s.c.DeriveKey(s.h, []*mechanism{newMechanism(p11.CKM_ECDH1_DERIVE, params)},
		objectHandle(o), []*attr{
			attribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
			attribute(p11.CKA_TOKEN, false), attribute(p11.CKA_SENSITIVE, false),
			attribute(p11.CKA_EXTRACTABLE, true), attribute(p11.CKA_VALUE_LEN, size),
		})
	return Object(h), err
}
