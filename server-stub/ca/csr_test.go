package ca

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
)

// FuzzParseCSR: a request is taken only with a signature of its own key.
func FuzzParseCSR(f *testing.F) {
	key, err := NewP256()
	if err != nil {
		f.Fatal(err)
	}
	good, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{EmailAddresses: []string{"a@example.com"}}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ParseCSR(der)
		switch {
		case err != nil && !errors.Is(err, ErrCSR):
			t.Errorf("an error of another kind: %v", err)
		case err == nil && csr.CheckSignature() != nil:
			t.Error("taken without proof")
		}
	})
}
