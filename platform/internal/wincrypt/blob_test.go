package wincrypt_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"smime-agent/platform/internal/wincrypt"
)

func rsaPublic(t testing.TB) *rsa.PublicKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func words(numbers ...uint32) []byte {
	var out []byte
	for _, n := range numbers {
		out = binary.LittleEndian.AppendUint32(out, n)
	}
	return out
}

// cngBlob lays a key out as BCRYPT_RSAKEY_BLOB is documented.
func cngBlob(k *rsa.PublicKey) []byte {
	return slices.Concat([]byte("RSA1"), words(2048, 3, 256, 0, 0), []byte{1, 0, 1}, k.N.Bytes())
}

// capiBlob lays a key out as BLOBHEADER and RSAPUBKEY are documented.
func capiBlob(k *rsa.PublicKey) []byte {
	return slices.Concat([]byte{6, 2, 0, 0}, words(0xa400), []byte("RSA1"), words(2048, 65537), wincrypt.Reversed(k.N.Bytes()))
}

func TestRSABlobs(t *testing.T) {
	want := rsaPublic(t)
	if got, err := wincrypt.ParseRSABlob(cngBlob(want)); err != nil || !want.Equal(got) {
		t.Errorf("CNG: %v, %v", got, err)
	}
	if got, err := wincrypt.ParseCAPIBlob(capiBlob(want)); err != nil || !want.Equal(got) {
		t.Errorf("CryptoAPI: %v, %v", got, err)
	}
}

func TestDamagedBlobs(t *testing.T) {
	key := rsaPublic(t)
	for name, blob := range map[string][]byte{
		"empty": nil, "short": make([]byte, 7), "magic": make([]byte, 300), "huge": slices.Concat([]byte("RSA1"), words(2048, 3, 0xfffffff0, 0, 0), make([]byte, 64)),
		"cut": cngBlob(key)[:200], "tail": append(cngBlob(key), 0), "no modulus": slices.Concat([]byte("RSA1"), words(0, 0, 0, 0, 0)),
	} {
		if got, err := wincrypt.ParseRSABlob(blob); err == nil {
			t.Errorf("CNG, %s: %v", name, got)
		}
	}
	for name, blob := range map[string][]byte{
		"empty": nil, "short": make([]byte, 19), "magic": make([]byte, 300), "cut": capiBlob(key)[:200], "tail": append(capiBlob(key), 0),
		"exponent": slices.Concat([]byte{6, 2, 0, 0}, words(0xa400), []byte("RSA1"), words(2048, 0), key.N.Bytes()),
	} {
		if got, err := wincrypt.ParseCAPIBlob(blob); err == nil {
			t.Errorf("CryptoAPI, %s: %v", name, got)
		}
	}
}

func TestECBlobs(t *testing.T) {
	for _, c := range []struct {
		curve       elliptic.Curve
		ecdsa, ecdh string
	}{{elliptic.P256(), "ECS1", "ECK1"}, {elliptic.P384(), "ECS3", "ECK3"}} {
		key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public, err := key.PublicKey.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		blob, err := wincrypt.ECDHBlob(public)
		if err != nil || string(blob[:4]) != c.ecdh {
			t.Errorf("ECDHBlob: %x, %v", blob, err)
		}
		for _, magic := range []string{c.ecdsa, c.ecdh} {
			copy(blob, magic)
			if got, err := wincrypt.ParseECBlob(blob); err != nil || !key.PublicKey.Equal(got) {
				t.Errorf("%s: %v, %v", magic, got, err)
			}
		}
		off := bytes.Clone(blob)
		off[len(off)-1] ^= 1
		for name, bad := range map[string][]byte{"off the curve": off, "cut": blob[:len(blob)-1], "tail": append(bytes.Clone(blob), 0), "short": blob[:7], "magic": slices.Concat([]byte("ECS5"), blob[4:])} {
			if got, err := wincrypt.ParseECBlob(bad); err == nil {
				t.Errorf("%s: %v", name, got)
			}
		}
	}
	stranger, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if blob, err := wincrypt.ECDHBlob(stranger.PublicKey()); err == nil {
		t.Errorf("X25519: %x", blob)
	}
}

func TestDER(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("text"))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	raw := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	der, err := wincrypt.DER(raw)
	if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], der) {
		t.Errorf("%x, %v", der, err)
	}
	for _, bad := range [][]byte{nil, raw[:63]} {
		if der, err := wincrypt.DER(bad); err == nil {
			t.Errorf("%d bytes: %x", len(bad), der)
		}
	}
}

func TestErrors(t *testing.T) {
	for code, want := range map[uint32]struct {
		class wincrypt.Class
		text  string
	}{
		0x80090016: {wincrypt.Missing, "NTE_BAD_KEYSET (0x80090016)"},
		0x8009000D: {wincrypt.Missing, "NTE_NO_KEY"},
		0x8009000F: {wincrypt.Exists, "NTE_EXISTS"},
		0x80090010: {wincrypt.Denied, "NTE_PERM"},
		0x80090022: {wincrypt.Locked, "NTE_SILENT_CONTEXT"},
		0x80090029: {wincrypt.Unsupported, "NTE_NOT_SUPPORTED"},
		0x80090030: {wincrypt.Absent, "NTE_DEVICE_NOT_READY"},
		0x80090005: {wincrypt.Unreadable, "NTE_BAD_DATA"},
		0x8028400F: {"", "0x8028400f"},
		0:          {"", "no reason"},
	} {
		err := fmt.Errorf("around: %w", &wincrypt.Error{Call: "NCryptX", Code: code})
		if got := wincrypt.ClassOf(err); got != want.class {
			t.Errorf("%#x is %q, want %q", code, got, want.class)
		}
		if !strings.Contains(err.Error(), "NCryptX") || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%#x reads %q", code, err)
		}
	}
	if got := wincrypt.ClassOf(errors.New("other")); got != "" {
		t.Errorf("a stranger's error is %q", got)
	}
}

func FuzzBlobs(f *testing.F) {
	f.Add(cngBlob(rsaPublic(f)))
	f.Add(capiBlob(rsaPublic(f)))
	f.Add(append([]byte("ECS1\x20\x00\x00\x00"), make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, blob []byte) {
		if k, err := wincrypt.ParseRSABlob(blob); err == nil && k.N.BitLen() < 1024 {
			t.Errorf("a key of %d bits", k.N.BitLen())
		}
		if k, err := wincrypt.ParseCAPIBlob(blob); err == nil && k.N.BitLen() < 1024 {
			t.Errorf("a key of %d bits", k.N.BitLen())
		}
		if k, err := wincrypt.ParseECBlob(blob); err == nil {
			if _, err := k.ECDH(); err != nil {
				t.Errorf("a point off its curve: %v", err)
			}
		}
	})
}
