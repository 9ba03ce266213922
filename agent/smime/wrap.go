package smime

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"  //nolint:gosec // old mail is in 3DES; never used to encrypt
	"crypto/sha1" //nolint:gosec // RFC 3217 and old key derivation; no signature rests on it
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
)

// keyWrapIV is the initial value of RFC 3394 §2.2.3.1.
var keyWrapIV = [8]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// wrapAES wraps a key of at least 16 octets, a multiple of 8 (RFC 3394 §2.2.1).
func wrapAES(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(key) < 16 || len(key)%8 != 0 {
		return nil, fmt.Errorf("%w: key of %d octets", ErrUnsupported, len(key))
	}
	n := len(key) / 8
	out := append(slices.Clone(keyWrapIV[:]), key...)
	var b [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[:8], out[:8])
			copy(b[8:], out[i*8:])
			block.Encrypt(b[:], b[:])
			t := uint64(n*j + i)
			binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b[:8])^t)
			copy(out[i*8:], b[8:])
		}
	}
	return out, nil
}

// unwrapAES is RFC 3394 §2.2.2.
func unwrapAES(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(wrapped) < 24 || len(wrapped) > 24+64 || len(wrapped)%8 != 0 {
		return nil, fmt.Errorf("%w: wrapped key of %d octets", ErrMalformed, len(wrapped))
	}
	n := len(wrapped)/8 - 1
	out := slices.Clone(wrapped)
	var b [16]byte
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			t := uint64(n*j + i)
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(out)^t)
			copy(b[8:], out[i*8:i*8+8])
			block.Decrypt(b[:], b[:])
			copy(out, b[:8])
			copy(out[i*8:], b[8:])
		}
	}
	if subtle.ConstantTimeCompare(out[:8], keyWrapIV[:]) != 1 {
		return nil, fmt.Errorf("%w: wrapped key", ErrDecrypt)
	}
	return out[8:], nil
}

// unwrapDES3 is RFC 3217 §3.2: two rounds of 3DES-CBC, and a SHA-1 checksum.
func unwrapDES3(kek, wrapped []byte) ([]byte, error) {
	block, err := des.NewTripleDESCipher(kek) //nolint:gosec // old mail
	if err != nil {
		return nil, err
	}
	if len(wrapped) != 40 {
		return nil, fmt.Errorf("%w: wrapped key of %d octets", ErrMalformed, len(wrapped))
	}
	out := make([]byte, 40)
	cipher.NewCBCDecrypter(block, []byte{0x4a, 0xdd, 0xa2, 0x2c, 0x79, 0xe8, 0x21, 0x05}).CryptBlocks(out, wrapped)
	slices.Reverse(out)
	cipher.NewCBCDecrypter(block, out[:8]).CryptBlocks(out[8:], out[8:])
	key, sum := out[8:32], sha1.Sum(out[8:32]) //nolint:gosec // as the standard says
	if subtle.ConstantTimeCompare(sum[:8], out[32:]) != 1 {
		return nil, fmt.Errorf("%w: wrapped key", ErrDecrypt)
	}
	return key, nil
}

// deriveKey is the key derivation function of ANSI X9.63 (SEC 1 §3.6.1).
func deriveKey(newHash func() hash.Hash, secret, sharedInfo []byte, size int) []byte {
	var key bytes.Buffer
	for counter := uint32(1); key.Len() < size; counter++ {
		h := newHash()
		h.Write(secret)
		_ = binary.Write(h, binary.BigEndian, counter) // a hash never fails
		h.Write(sharedInfo)
		key.Write(h.Sum(nil))
	}
	return key.Bytes()[:size]
}
