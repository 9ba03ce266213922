package security

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestStatus(t *testing.T) {
	if got := ItemNotFound.Error(); got != "keychain: errSecItemNotFound (-25300)" {
		t.Error(got)
	}
	if got := Status(-7).Error(); !strings.Contains(got, "-7") {
		t.Error(got)
	}
	if errors.Is(AuthFailed, UserCanceled) || !errors.Is(AuthFailed, Status(-25293)) {
		t.Error("statuses are compared by number")
	}
}

// TestParsePublic reads both kinds back, and knows them by their label.
func TestParsePublic(t *testing.T) {
	made, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	check(t, x509.MarshalPKCS1PublicKey(&made.PublicKey), &made.PublicKey)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		check(t, point, &key.PublicKey)
	}
	for name, raw := range map[string][]byte{"nothing": nil, "a short point": {4, 1, 2}, "no key": {0x30, 0}, "no point": append([]byte{4}, make([]byte, 64)...)} {
		if key, err := ParsePublic(raw); err == nil {
			t.Errorf("%s was read as %T", name, key)
		}
	}
}

func check(t *testing.T, raw []byte, want interface{ Equal(crypto.PublicKey) bool }) {
	t.Helper()
	got, err := ParsePublic(raw)
	if err != nil || !want.Equal(got) {
		t.Errorf("%T: %v", want, err)
	}
	if (Item{Label: make([]byte, 20)}).Labels(got) || (Item{}).Labels(got) {
		t.Errorf("a foreign label fits %T", want)
	}
}

// TestLabels: the label of the point G of P-256, by an independent SHA-1
// (openssl dgst).
func TestLabels(t *testing.T) {
	point, err := hex.DecodeString("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
		"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePublic(point)
	if err != nil {
		t.Fatal(err)
	}
	label, err := hex.DecodeString("b467a3999eb5efa671de0032f08a9c9e5efda0e1")
	if err != nil {
		t.Fatal(err)
	}
	if !(Item{Label: label}).Labels(key) {
		t.Error("the label of a known key does not fit")
	}
	if (Item{Label: label}).Labels("no key") {
		t.Error("the label fits what is no key")
	}
}
