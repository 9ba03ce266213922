package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
)

// FuzzPublic: what the keychain calls a public key is one, or is refused.
func FuzzPublic(f *testing.F) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(point)
	f.Add(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	f.Add([]byte{4, 4})
	f.Fuzz(func(t *testing.T, raw []byte) {
		public, err := ParsePublic(raw)
		if err != nil {
			return
		}
		if _, err := x509.MarshalPKIXPublicKey(public); err != nil {
			t.Errorf("%x is no key: %v", raw, err)
		}
	})
}
