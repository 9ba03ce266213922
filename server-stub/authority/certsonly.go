package authority

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxCerts bounds what one message may hold.
const maxCerts = 32

// CertsOnly reads a certs-only message (RFC 5272, 4.1): a SignedData of RFC 5652
// without content and signers. Errors are [ErrAnswer].
func CertsOnly(der []byte) ([]*x509.Certificate, error) {
	broken := func(what string) error { return fmt.Errorf("%w: certs-only message: %s", ErrAnswer, what) }
	input := cryptobyte.String(der)
	var info, wrapped, signed, certs cryptobyte.String
	var kind asn1.ObjectIdentifier
	explicit := cbasn1.Tag(0).ContextSpecific().Constructed()
	if !input.ReadASN1(&info, cbasn1.SEQUENCE) || !input.Empty() || !info.ReadASN1ObjectIdentifier(&kind) ||
		!info.ReadASN1(&wrapped, explicit) || !info.Empty() || !wrapped.ReadASN1(&signed, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return nil, broken("not a ContentInfo")
	}
	if !kind.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}) {
		return nil, broken("not a SignedData")
	}
	var version int
	var present bool
	if !signed.ReadASN1Integer(&version) || !signed.SkipASN1(cbasn1.SET) || !signed.SkipASN1(cbasn1.SEQUENCE) ||
		!signed.ReadOptionalASN1(&certs, &present, explicit) || !present {
		return nil, broken("no certificates")
	}
	var out []*x509.Certificate
	for !certs.Empty() {
		var one cryptobyte.String
		if !certs.ReadASN1Element(&one, cbasn1.SEQUENCE) {
			return nil, broken("a certificate of another kind")
		}
		cert, err := x509.ParseCertificate(one)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		if out = append(out, cert); len(out) > maxCerts {
			return nil, broken("too many certificates")
		}
	}
	if len(out) == 0 {
		return nil, broken("no certificates")
	}
	return out, nil
}
