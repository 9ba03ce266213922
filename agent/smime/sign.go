package smime

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // linked in for crypto.SHA256
	_ "crypto/sha512" // linked in for crypto.SHA384 and SHA512
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// SignOptions says how to sign. The zero value gives a message that contains
// what it signs and states no time.
type SignOptions struct {
	// Detached leaves the content out, as multipart/signed mail does.
	Detached bool
	// Time is the signing time; zero leaves the attribute out.
	Time time.Time
	// EncryptionCertificate is told to correspondents as the one to encrypt to
	// (RFC 8551 §2.5.3), for people with one key to sign and one to decrypt.
	EncryptionCertificate *x509.Certificate
}

// Sign makes a SignedData with one signature by key, which must be leaf's. It
// contains leaf and chain. The digest is SHA-256, for P-384 and P-521 that of
// the curve's strength.
func Sign(content []byte, leaf *x509.Certificate, chain []*x509.Certificate, key crypto.Signer, o SignOptions) ([]byte, error) {
	if !sameKey(leaf.PublicKey, key.Public()) {
		return nil, ErrKey
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return nil, fmt.Errorf("%w: signing", ErrUsage)
	}
	scheme, err := schemeFor(leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	attributes, err := signedAttributes(content, scheme, o)
	if err != nil {
		return nil, err
	}
	signed := cryptobyte.NewBuilder(nil)
	addSetOf(signed, cryptoasn1.SET, attributes)
	toSign, err := signed.Bytes()
	if err != nil {
		return nil, fmt.Errorf("build signed attributes: %w", err)
	}
	signature, err := key.Sign(rand.Reader, digest(scheme.hash, toSign), scheme.hash)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	return buildContentInfo(oidSignedData, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cryptoasn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, scheme.digest) })
		addContent(b, content, o.Detached)
		addCertificates(b, leaf, chain)
		b.AddASN1(cryptoasn1.SET, func(b *cryptobyte.Builder) {
			addSignerInfo(b, leaf, scheme, attributes, signature)
		})
	})
}

// scheme is a way to sign: digest and signature algorithm as CMS names them.
type scheme struct {
	hash      crypto.Hash
	digest    asn1.ObjectIdentifier
	signature asn1.ObjectIdentifier
	// null: the parameters of the signature algorithm are NULL (RFC 3370 §3.2),
	// not absent (RFC 5754 §3.3).
	null bool
}

func schemeFor(public crypto.PublicKey) (scheme, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return scheme{crypto.SHA256, oidSHA256, oidRSA, true}, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return scheme{crypto.SHA256, oidSHA256, oidECDSASHA256, false}, nil
		case elliptic.P384():
			return scheme{crypto.SHA384, oidSHA384, oidECDSASHA384, false}, nil
		case elliptic.P521():
			return scheme{crypto.SHA512, oidSHA512, oidECDSASHA512, false}, nil
		}
	}
	return scheme{}, fmt.Errorf("%w: signing by this kind of key", ErrUnsupported)
}

func digest(h crypto.Hash, data []byte) []byte {
	d := h.New()
	d.Write(data)
	return d.Sum(nil)
}

// signedAttributes gives the attributes (RFC 5652 §11, RFC 8551 §2.5), each as DER.
func signedAttributes(content []byte, s scheme, o SignOptions) ([][]byte, error) {
	values := []struct {
		oid   asn1.ObjectIdentifier
		value cryptobyte.BuilderContinuation
	}{
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest(s.hash, content)) }},
		{oidCapabilities, addCapabilities},
		{oidSigningTime, func(b *cryptobyte.Builder) { addTime(b, o.Time) }},
		{oidEncryptionKey, func(b *cryptobyte.Builder) {
			addIssuerAndSerial(b, context0Constructed, o.EncryptionCertificate)
		}},
		{oidMicrosoftEncryption, func(b *cryptobyte.Builder) {
			addIssuerAndSerial(b, cryptoasn1.SEQUENCE, o.EncryptionCertificate)
		}},
	}
	var attributes [][]byte
	for _, v := range values {
		if v.oid.Equal(oidSigningTime) && o.Time.IsZero() {
			continue
		}
		if (v.oid.Equal(oidEncryptionKey) || v.oid.Equal(oidMicrosoftEncryption)) && o.EncryptionCertificate == nil {
			continue
		}
		b := cryptobyte.NewBuilder(nil)
		b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(v.oid)
			b.AddASN1(cryptoasn1.SET, v.value)
		})
		der, err := b.Bytes()
		if err != nil {
			return nil, fmt.Errorf("build attribute %s: %w", v.oid, err)
		}
		attributes = append(attributes, der)
	}
	return attributes, nil
}

// addCapabilities names what the signer's mail program should be sent: AES in
// CBC mode, which every mail program reads, the strongest first.
func addCapabilities(b *cryptobyte.Builder) {
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, oidAES256CBC)
		addAlgorithm(b, oidAES128CBC)
	})
}

// addTime writes UTCTime to 2049 and GeneralizedTime from then on (RFC 5652 §11.3).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() >= 1950 && t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

func addContent(b *cryptobyte.Builder, content []byte, detached bool) {
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidData)
		if !detached {
			b.AddASN1(context0Constructed, func(b *cryptobyte.Builder) { b.AddASN1OctetString(content) })
		}
	})
}

func addCertificates(b *cryptobyte.Builder, leaf *x509.Certificate, chain []*x509.Certificate) {
	raw := [][]byte{leaf.Raw}
	for _, c := range chain {
		if !c.Equal(leaf) {
			raw = append(raw, c.Raw)
		}
	}
	addSetOf(b, context0Constructed, raw)
}

func addSignerInfo(b *cryptobyte.Builder, leaf *x509.Certificate, s scheme, attributes [][]byte, signature []byte) {
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		addIssuerAndSerial(b, cryptoasn1.SEQUENCE, leaf)
		addAlgorithm(b, s.digest)
		addSetOf(b, context0Constructed, attributes)
		addAlgorithmWith(b, s.signature, func(b *cryptobyte.Builder) {
			if s.null {
				addNull(b)
			}
		})
		b.AddASN1OctetString(signature)
	})
}
