package main

import "C"

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"
)

// What a key may be used for (ncrypt.h).
const (
	mayDecrypt = 1
	maySign    = 2
	mayAgree   = 4
)

//export NCryptExportKey
func NCryptExportKey(h, wrapping uintptr, layout *uint16, params unsafe.Pointer, into *byte, size uint32, n *uint32, _ uint32) uint32 {
	k, found := object[key](h)
	if !found || k.private == nil || wrapping != 0 {
		return nteInvalid
	}
	switch public := k.private.Public().(type) {
	case *rsa.PublicKey:
		if utf16(layout) == "RSAPUBLICBLOB" {
			return give(rsaBlob(public), buffer(into, size), n)
		}
	case *ecdsa.PublicKey:
		if utf16(layout) == "ECCPUBLICBLOB" {
			return give(eccBlob(public, strings.HasPrefix(k.Algorithm, "ECDH")), buffer(into, size), n)
		}
	}
	return nteNotSupported // private ones never
}

func rsaBlob(public *rsa.PublicKey) []byte {
	out := []byte("RSA1")
	for _, v := range []int{public.N.BitLen(), 3, public.Size(), 0, 0} {
		out = binary.LittleEndian.AppendUint32(out, uint32(v))
	}
	return slices.Concat(out, []byte{1, 0, 1}, public.N.FillBytes(make([]byte, public.Size())))
}

func eccBlob(public *ecdsa.PublicKey, agrees bool) []byte {
	size := public.Curve.Params().BitSize / 8
	magic := map[bool]map[int]string{false: {32: "ECS1", 48: "ECS3"}, true: {32: "ECK1", 48: "ECK3"}}[agrees][size]
	point, err := public.Bytes()
	if err != nil {
		return nil
	}
	return slices.Concat([]byte(magic), []byte{byte(size), 0, 0, 0}, point[1:])
}

// remote is an imported public key, agreed the outcome of an agreement.
type remote struct{ key *ecdh.PublicKey }
type agreed struct{ secret []byte }

//export NCryptImportKey
func NCryptImportKey(h, wrapping uintptr, layout *uint16, params unsafe.Pointer, out *uintptr, from *byte, size, _ uint32) uint32 {
	if _, found := object[provider](h); !found || wrapping != 0 {
		return nteInvalid
	}
	blob := buffer(from, size)
	if utf16(layout) != "ECCPUBLICBLOB" || len(blob) < 8 {
		return nteNotSupported
	}
	curve := map[string]ecdh.Curve{"ECK1": ecdh.P256(), "ECK3": ecdh.P384()}[string(blob[:4])]
	if curve == nil || binary.LittleEndian.Uint32(blob[4:]) != uint32(len(blob)-8)/2 {
		return nteParameter
	}
	k, err := curve.NewPublicKey(slices.Concat([]byte{4}, blob[8:]))
	if err != nil {
		return nteParameter
	}
	*out = newHandle(&remote{k})
	return ok
}

//export NCryptSecretAgreement
func NCryptSecretAgreement(h, other uintptr, out *uintptr, _ uint32) uint32 {
	k, found := object[key](h)
	r, found2 := object[remote](other)
	if !found || !found2 {
		return nteInvalid
	}
	private, isEC := k.private.(*ecdsa.PrivateKey)
	if !isEC || !strings.HasPrefix(k.Algorithm, "ECDH") || k.Usage&mayAgree == 0 {
		return nteNotSupported
	}
	own, err := private.ECDH()
	if err != nil {
		return nteFail
	}
	secret, err := own.ECDH(r.key)
	if err != nil {
		return nteParameter
	}
	slices.Reverse(secret) // BCRYPT_KDF_RAW_SECRET is little-endian
	*out = newHandle(&agreed{secret})
	return ok
}

//export NCryptDeriveKey
func NCryptDeriveKey(h uintptr, kdf *uint16, params unsafe.Pointer, into *byte, size uint32, n *uint32, flags uint32) uint32 {
	a, found := object[agreed](h)
	if !found {
		return nteInvalid
	}
	if flags != 0 { // none is documented that fits
		return nteParameter
	}
	if utf16(kdf) != "TRUNCATE" {
		return nteNotSupported
	}
	return give(a.secret, buffer(into, size), n)
}

var hashes = map[string]crypto.Hash{"SHA1": crypto.SHA1, "SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512}

// pssPadding begins as BCRYPT_PKCS1_PADDING_INFO does.
type pssPadding struct {
	hash *uint16
	salt uint32
}

// oaepPadding is BCRYPT_OAEP_PADDING_INFO.
type oaepPadding struct {
	hash     *uint16
	label    *byte
	labelLen uint32
}

//export NCryptSignHash
func NCryptSignHash(h uintptr, padding unsafe.Pointer, hash *byte, hashLen uint32, into *byte, size uint32, n *uint32, flags uint32) uint32 {
	k, found := object[key](h)
	if !found || k.private == nil {
		return nteInvalid
	}
	if k.Usage&maySign == 0 {
		return ntePerm
	}
	digest := buffer(hash, hashLen)
	if private, isEC := k.private.(*ecdsa.PrivateKey); isEC {
		return signEC(private, digest, buffer(into, size), n, flags)
	}
	if padding == nil {
		return nteParameter
	}
	info := (*pssPadding)(padding)
	var opts crypto.SignerOpts = hashes[utf16(info.hash)]
	if opts == crypto.Hash(0) {
		return nteNotSupported
	}
	switch flags &^ 0x40 {
	case 2:
	case 8:
		opts = &rsa.PSSOptions{Hash: hashes[utf16(info.hash)], SaltLength: int(info.salt)}
	default:
		return nteParameter
	}
	signature, err := k.private.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nteParameter
	}
	return give(signature, buffer(into, size), n)
}

func signEC(private *ecdsa.PrivateKey, digest, into []byte, n *uint32, flags uint32) uint32 {
	size := private.Curve.Params().BitSize / 8
	if flags&^0x40 != 0 || len(digest) > size {
		return nteParameter
	}
	r, s, err := ecdsa.Sign(rand.Reader, private, digest)
	if err != nil {
		return nteFail
	}
	return give(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), into, n)
}

//export NCryptDecrypt
func NCryptDecrypt(h uintptr, from *byte, fromLen uint32, padding unsafe.Pointer, into *byte, size uint32, n *uint32, flags uint32) uint32 {
	k, found := object[key](h)
	if !found {
		return nteInvalid
	}
	private, isRSA := k.private.(*rsa.PrivateKey)
	if !isRSA || k.Usage&mayDecrypt == 0 {
		return nteNotSupported
	}
	var opts crypto.DecrypterOpts
	switch flags &^ 0x40 {
	case 2:
	case 4:
		info := (*oaepPadding)(padding)
		opts = &rsa.OAEPOptions{Hash: hashes[utf16(info.hash)], Label: buffer(info.label, info.labelLen)}
	default:
		return nteParameter
	}
	plain, err := private.Decrypt(rand.Reader, buffer(from, fromLen), opts)
	if err != nil {
		return nteParameter
	}
	return give(plain, buffer(into, size), n)
}
