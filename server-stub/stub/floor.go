package stub

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"

	"smime-agent/server-stub/ca"
)

// Floor is what no server can do without: parse and check the CSR, and sign by
// the standard library. Benchmarks hold the server's work beside it.
type Floor struct {
	issuer  *x509.Certificate
	key     crypto.Signer
	serials ca.Serials
}

// NewFloor makes one with a key P-256, the CA's usual kind.
func NewFloor() (*Floor, error) {
	key, err := ca.NewP256()
	if err != nil {
		return nil, err
	}
	return &Floor{key: key, issuer: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Floor"}, SubjectKeyId: make([]byte, 20), IsCA: true,
	}}, nil
}

// Issue signs one certificate.
func (f *Floor) Issue(csr []byte) error {
	request, err := ca.ParseCSR(csr)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: f.serials.Next(time.Now()).Int(), Subject: pkix.Name{CommonName: "Alice Example"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(ca.Life), EmailAddresses: []string{"alice@example.com"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	_, err = x509.CreateCertificate(rand.Reader, template, f.issuer, request.PublicKey, f.key)
	return err
}
