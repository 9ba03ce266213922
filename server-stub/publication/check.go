// Package publication keeps what others need to write to a mailbox encrypted:
// the values for the directory that devices sign (userSMIMECertificate, RFC 2798
// §2.8), and which certificate of a mailbox is the one to encrypt to.
package publication

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/smallstep/pkcs7"
)

// MaxValue bounds a value, in bytes.
const MaxValue = 32 << 10

// maxCertificates bounds the certificates in a value.
const maxCertificates = 16

// ErrValue: the value is not one that the signer's device can have made.
var ErrValue = errors.New("not a signed value for the directory")

var (
	oidEncryptionKey          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 11} // RFC 8551 §2.5.3
	oidMicrosoftEncryptionKey = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 16, 4}
	oidCapabilities           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 15}
)

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

// Check judges a value: a SignedData without content, with one signature, by the
// key of signer, which is in it, and with the attributes that mail programs look
// for. It gives the certificate that the value tells others to encrypt to. Errors
// are [ErrValue].
func Check(value []byte, signer *x509.Certificate) (encryptTo *x509.Certificate, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%w: %v", ErrValue, broken)
		}
	}()
	if len(value) == 0 || len(value) > MaxValue {
		return nil, fmt.Errorf("%w: %d bytes", ErrValue, len(value))
	}
	p7, err := pkcs7.Parse(value)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	case len(p7.Content) > 0:
		return nil, fmt.Errorf("%w: it has content", ErrValue)
	case len(p7.Signers) != 1 || len(p7.Certificates) > maxCertificates:
		return nil, fmt.Errorf("%w: %d signatures, %d certificates", ErrValue, len(p7.Signers), len(p7.Certificates))
	case len(p7.Signers[0].AuthenticatedAttributes) == 0:
		return nil, fmt.Errorf("%w: nothing says what was signed", ErrValue)
	}
	by := p7.GetOnlySigner()
	if by == nil || !bytes.Equal(by.Raw, signer.Raw) {
		return nil, fmt.Errorf("%w: signed by another certificate", ErrValue)
	}
	if err := p7.Verify(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return preferred(p7)
}

// preferred reads both ways of saying what to encrypt to; they must agree.
func preferred(p7 *pkcs7.PKCS7) (*x509.Certificate, error) {
	var capabilities, standard asn1.RawValue
	var choice issuerAndSerial
	if err := p7.UnmarshalSignedAttribute(oidCapabilities, &capabilities); err != nil {
		return nil, fmt.Errorf("%w: no capabilities", ErrValue)
	}
	if err := p7.UnmarshalSignedAttribute(oidMicrosoftEncryptionKey, &choice); err != nil {
		return nil, fmt.Errorf("%w: it does not say what to encrypt to", ErrValue)
	}
	if err := p7.UnmarshalSignedAttribute(oidEncryptionKey, &standard); err != nil {
		return nil, fmt.Errorf("%w: it does not say what to encrypt to", ErrValue)
	}
	same, err := asn1.Marshal(choice)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(same, &whole); err != nil || !bytes.Equal(whole.Bytes, standard.Bytes) {
		return nil, fmt.Errorf("%w: it names two certificates to encrypt to", ErrValue)
	}
	for _, c := range p7.Certificates {
		if bytes.Equal(c.RawIssuer, choice.Issuer.FullBytes) && c.SerialNumber.Cmp(choice.Serial) == 0 {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: the certificate to encrypt to is not in it", ErrValue)
}
