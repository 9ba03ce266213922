package smime

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Context tags of CMS, primitive and constructed.
const (
	context0            = cryptoasn1.Tag(0x80)
	context0Constructed = cryptoasn1.Tag(0xa0)
	context1Constructed = cryptoasn1.Tag(0xa1)
	context2Constructed = cryptoasn1.Tag(0xa2)
)

// algorithm is an AlgorithmIdentifier. raw is the whole element as it stood in
// the message: RFC 5753 derives keys from its very bytes.
type algorithm struct {
	oid    asn1.ObjectIdentifier
	params cryptobyte.String // the element after the OID, empty if absent
	raw    []byte
}

func readAlgorithm(in *cryptobyte.String) (a algorithm, err error) {
	var whole, body cryptobyte.String
	if !in.ReadASN1Element(&whole, cryptoasn1.SEQUENCE) {
		return a, fmt.Errorf("%w: algorithm", ErrMalformed)
	}
	a.raw = whole
	if !whole.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1ObjectIdentifier(&a.oid) {
		return a, fmt.Errorf("%w: algorithm", ErrMalformed)
	}
	a.params = body
	return a, nil
}

// addAlgorithm writes an AlgorithmIdentifier without parameters.
func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	addAlgorithmWith(b, oid, func(*cryptobyte.Builder) {})
}

func addAlgorithmWith(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, params cryptobyte.BuilderContinuation) {
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		params(b)
	})
}

func addNull(b *cryptobyte.Builder) { b.AddASN1(cryptoasn1.NULL, func(*cryptobyte.Builder) {}) }

// openContentInfo gives type and content of the outermost structure.
func openContentInfo(message []byte) (asn1.ObjectIdentifier, cryptobyte.String, error) {
	der, err := normalize(message)
	if err != nil {
		return nil, nil, err
	}
	var oid asn1.ObjectIdentifier
	var info, content cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&info, cryptoasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&oid) ||
		!info.ReadASN1(&content, context0Constructed) || !info.Empty() {
		return nil, nil, fmt.Errorf("%w: content info", ErrMalformed)
	}
	return oid, content, nil
}

func buildContentInfo(oid asn1.ObjectIdentifier, content cryptobyte.BuilderContinuation) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptoasn1.SEQUENCE, content)
		})
	})
	return b.Bytes()
}

// certID names a certificate in a message, in one of two ways (RFC 8551 §2.6).
type certID struct {
	issuer []byte // DER Name
	serial *big.Int
	keyID  []byte
}

func (id certID) matches(c *x509.Certificate) bool {
	if id.serial != nil {
		return c.SerialNumber != nil && id.serial.Cmp(c.SerialNumber) == 0 && bytes.Equal(id.issuer, c.RawIssuer)
	}
	return len(id.keyID) > 0 && bytes.Equal(id.keyID, c.SubjectKeyId)
}

// readCertID reads issuerAndSerialNumber, or a subjectKeyIdentifier tagged [0].
func readCertID(in *cryptobyte.String) (certID, error) {
	var id certID
	if in.PeekASN1Tag(context0) {
		var key cryptobyte.String
		if !in.ReadASN1(&key, context0) || len(key) == 0 {
			return id, fmt.Errorf("%w: key identifier", ErrMalformed)
		}
		id.keyID = key
		return id, nil
	}
	var body, issuer cryptobyte.String
	id.serial = new(big.Int)
	if !in.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1Element(&issuer, cryptoasn1.SEQUENCE) ||
		!body.ReadASN1Integer(id.serial) || !body.Empty() {
		return certID{}, fmt.Errorf("%w: issuer and serial number", ErrMalformed)
	}
	id.issuer = issuer
	return id, nil
}

func addIssuerAndSerial(b *cryptobyte.Builder, tag cryptoasn1.Tag, c *x509.Certificate) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		b.AddBytes(c.RawIssuer)
		b.AddASN1BigInt(c.SerialNumber)
	})
}

// addSetOf writes elements in the order that DER wants (X.690 §11.6).
func addSetOf(b *cryptobyte.Builder, tag cryptoasn1.Tag, elements [][]byte) {
	slices.SortFunc(elements, bytes.Compare)
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		for _, e := range elements {
			b.AddBytes(e)
		}
	})
}

// sameKey says that two public keys are the same; kinds it does not know are not.
func sameKey(a, b any) bool {
	x, errX := x509.MarshalPKIXPublicKey(a)
	y, errY := x509.MarshalPKIXPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
