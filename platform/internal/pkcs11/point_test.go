//go:build linux && cgo

package pkcs11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"testing"
)

// TestPointOfBothForms: a bare point whose x begins as the length of an OCTET
// STRING would, which one in 256 does, is read as the point that it is.
func TestPointOfBothForms(t *testing.T) {
	for params, curve := range map[*[]byte]elliptic.Curve{&paramsP256: elliptic.P256(), &paramsP384: elliptic.P384()} {
		for length, tries := 2*(curve.Params().BitSize/8)-1, 0; ; tries++ {
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			bare, err := key.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if int(bare[1]) != length && tries < 20000 {
				continue
			}
			wrapped, err := asn1.Marshal(bare)
			if err != nil {
				t.Fatal(err)
			}
			for _, point := range [][]byte{bare, wrapped} {
				if got, err := parsePoint(*params, point); err != nil || !got.Equal(&key.PublicKey) {
					t.Errorf("%x: %v", point, err)
				}
			}
			break
		}
	}
}

// FuzzPoint: what a module calls a public key lies on its curve, or is refused.
func FuzzPoint(f *testing.F) {
	f.Add([]byte{4, 65, 4}, true)
	f.Fuzz(func(t *testing.T, point []byte, p256 bool) {
		params := paramsP384
		if p256 {
			params = paramsP256
		}
		if key, err := parsePoint(params, point); err == nil {
			if _, err := key.ECDH(); err != nil {
				t.Errorf("a point on no curve: %v", err)
			}
		}
	})
}
