package ca

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
)

// MaxCSR is the largest CSR that is looked at, in octets.
const MaxCSR = 16 << 10

// ErrCSR: the request cannot be read, or its signature is wrong.
var ErrCSR = errors.New("the certificate request is not valid")

// maxRSABits bounds the cost of a signature check before the kind of key is judged.
const maxRSABits = 8192

// ParseCSR reads a PKCS #10 request (RFC 2986) and checks that its signer has
// the private key. Errors are [ErrCSR].
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) == 0 || len(der) > MaxCSR {
		return nil, fmt.Errorf("%w: it has %d octets", ErrCSR, len(der))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	if key, ok := csr.PublicKey.(*rsa.PublicKey); ok && (key.N.BitLen() > maxRSABits || key.E > 1<<31-1) {
		return nil, fmt.Errorf("%w: RSA key of %d bits", ErrCSR, key.N.BitLen())
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	return csr, nil
}
