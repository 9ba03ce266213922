package smime

import (
	"crypto"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// readOAEP reads RSAES-OAEP-params (RFC 8017 §A.2.1); what is absent is SHA-1.
func readOAEP(a algorithm) (*rsa.OAEPOptions, error) {
	if !a.oid.Equal(oidRSAOAEP) {
		return nil, fmt.Errorf("%w: key transport %s", ErrUnsupported, a.oid)
	}
	bad := fmt.Errorf("%w: OAEP parameters", ErrMalformed)
	o := &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA1}
	params := a.params
	if params.Empty() {
		return o, nil
	}
	var body, hash, mask, label cryptobyte.String
	var hasHash, hasMask, hasLabel bool
	if !params.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadOptionalASN1(&hash, &hasHash, context0Constructed) ||
		!body.ReadOptionalASN1(&mask, &hasMask, context1Constructed) ||
		!body.ReadOptionalASN1(&label, &hasLabel, context2Constructed) {
		return nil, bad
	}
	var err error
	if hasHash {
		if o.Hash, err = readHash(&hash); err != nil {
			return nil, err
		}
	}
	if hasMask {
		mgf, err := readAlgorithm(&mask)
		if err != nil {
			return nil, err
		}
		if !mgf.oid.Equal(oidMGF1) {
			return nil, fmt.Errorf("%w: OAEP mask", ErrUnsupported)
		}
		if o.MGFHash, err = readHash(&mgf.params); err != nil {
			return nil, err
		}
	}
	if hasLabel {
		source, err := readAlgorithm(&label)
		if err != nil {
			return nil, err
		}
		var value cryptobyte.String
		if !source.oid.Equal(oidPSpecified) || !source.params.ReadASN1(&value, cryptoasn1.OCTET_STRING) {
			return nil, bad
		}
		o.Label = value
	}
	return o, nil
}

func readHash(in *cryptobyte.String) (crypto.Hash, error) {
	a, err := readAlgorithm(in)
	if err != nil {
		return 0, err
	}
	for _, h := range []struct {
		oid  asn1.ObjectIdentifier
		hash crypto.Hash
	}{{oidSHA1, crypto.SHA1}, {oidSHA224, crypto.SHA224}, {oidSHA256, crypto.SHA256}, {oidSHA384, crypto.SHA384}, {oidSHA512, crypto.SHA512}} {
		if a.oid.Equal(h.oid) {
			return h.hash, nil
		}
	}
	return 0, fmt.Errorf("%w: digest %s", ErrUnsupported, a.oid)
}
