package smime

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKeyWrapVectors holds against RFC 3394 §4.1, 4.3 and 4.6.
func TestKeyWrapVectors(t *testing.T) {
	for _, v := range []struct{ kek, key, wrapped string }{
		{"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff", "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f", "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"},
	} {
		kek, key, wrapped := unhex(t, v.kek), unhex(t, v.key), unhex(t, v.wrapped)
		if got, err := wrapAES(kek, key); err != nil || !bytes.Equal(got, wrapped) {
			t.Errorf("wrap: %x, %v", got, err)
		}
		if got, err := unwrapAES(kek, wrapped); err != nil || !bytes.Equal(got, key) {
			t.Errorf("unwrap: %x, %v", got, err)
		}
		wrapped[3] ^= 1
		if _, err := unwrapAES(kek, wrapped); !errors.Is(err, ErrDecrypt) {
			t.Errorf("unwrap what was changed: %v", err)
		}
	}
	for _, n := range []int{0, 8, 16, 23, 25, 96} {
		if _, err := unwrapAES(make([]byte, 16), make([]byte, n)); !errors.Is(err, ErrMalformed) {
			t.Errorf("unwrap %d octets: %v", n, err)
		}
	}
}

// TestDES3Unwrap wraps as RFC 3217 §3.1 says, step by step, and unwraps.
func TestDES3Unwrap(t *testing.T) {
	kek, key, iv := bytes.Repeat([]byte{1, 2, 4}, 8), bytes.Repeat([]byte{7, 8, 11}, 8), []byte("12345678")
	block, err := des.NewTripleDESCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(key)
	inner := append(slices.Clone(key), sum[:8]...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(inner, inner)
	wrapped := append(slices.Clone(iv), inner...)
	slices.Reverse(wrapped)
	cipher.NewCBCEncrypter(block, []byte{0x4a, 0xdd, 0xa2, 0x2c, 0x79, 0xe8, 0x21, 0x05}).CryptBlocks(wrapped, wrapped)
	if got, err := unwrapDES3(kek, wrapped); err != nil || !bytes.Equal(got, key) {
		t.Errorf("%x, %v", got, err)
	}
	wrapped[39] ^= 1
	if _, err := unwrapDES3(kek, wrapped); !errors.Is(err, ErrDecrypt) {
		t.Errorf("what was changed: %v", err)
	}
	if _, err := unwrapDES3(kek, wrapped[:32]); !errors.Is(err, ErrMalformed) {
		t.Errorf("too short: %v", err)
	}
}

func TestNormalize(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"definite", "3003020101", "3003020101"},
		{"indefinite", "30800201010000", "3003020101"},
		{"nested", "3080a0800201010000020102" + "0000", "3008a003020101020102"},
		{"octets in pieces", "2480040161040262630000", "0403616263"},
		{"octets in pieces of pieces", "240a2408040161040262630000", ""},
		{"definite pieces", "24070401610402" + "6263", "0403616263"},
		{"pieces of pieces", "2480248004016104016200000401630000", "0403616263"},
		{"no pieces", "24800000", "0400"},
		{"long length", "308400000003020101", "3003020101"},
		{"implicit pieces stay", "a0800401610000", "a003040161"},
		{"foreign piece", "24800201010000", ""},
		{"no end", "3080020101", ""},
		{"half an end", "308002010100", ""},
		{"cut off", "30030201", ""},
		{"trailing", "300302010100", ""},
		{"primitive indefinite", "04800000", ""},
		{"high tag", "3f1f00", ""},
		{"length of nine octets", "3089000000000000000003020101", ""},
		{"huge", "30847fffffff0201", ""},
		{"empty", "", ""},
	}
	for _, tt := range tests {
		got, err := normalize(unhex(t, tt.in))
		if (err != nil) != (tt.want == "") || hex.EncodeToString(got) != tt.want {
			t.Errorf("%s: %x, %v; want %s", tt.name, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v is not ErrMalformed", tt.name, err)
		}
	}
	deep := append(bytes.Repeat([]byte{0x30, 0x80}, 100), bytes.Repeat([]byte{0, 0}, 100)...)
	if _, err := normalize(deep); !errors.Is(err, ErrMalformed) {
		t.Errorf("100 levels: %v", err)
	}
	long := append([]byte{0x24, 0x80, 0x04, 0x82, 0x01, 0x00}, make([]byte, 256)...)
	long = append(long, 0x04, 0x01, 0xff, 0, 0)
	if got, err := normalize(long); err != nil || len(got) != 4+257 || got[len(got)-1] != 0xff {
		t.Errorf("257 octets in pieces: %d, %v", len(got), err)
	}
}
