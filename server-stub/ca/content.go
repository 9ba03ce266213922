package ca

import (
	"crypto/sha1" //nolint:gosec // RFC 5280, 4.2.1.2 (1): an identifier, not a protection
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Subject is whom a certificate names. Which of the fields go in is the
// profile's decision (BR 7.1.4.2).
type Subject struct {
	Organization   string
	OrganizationID string // e.g. "NTRDE-DER3306.HRB12345"
	Country        string // two capital letters
	GivenName      string
	Surname        string
	CommonName     string // of a person
	Mailboxes      []string
}

// maxCommonName is ub-common-name of RFC 5280, appendix A.
const maxCommonName = 64

type attribute struct {
	oid   asn1.ObjectIdentifier
	value string
	tag   cbasn1.Tag
}

// attributes gives the subject as BR 7.1.4.2.3 to .5 want it, one value an RDN.
func (s Subject) attributes(v Validation) []attribute {
	if v == MailboxValidated {
		if len(s.Mailboxes[0]) > maxCommonName {
			return nil // there may be none (BR 7.1.4.2.3); the mailbox is in the subjectAltName
		}
		return []attribute{commonName(s.Mailboxes[0])}
	}
	list := []attribute{
		{asn1.ObjectIdentifier{2, 5, 4, 6}, s.Country, cbasn1.PrintableString},
		{asn1.ObjectIdentifier{2, 5, 4, 10}, s.Organization, cbasn1.UTF8String},
		{asn1.ObjectIdentifier{2, 5, 4, 97}, s.OrganizationID, cbasn1.UTF8String},
	}
	if v == OrganizationValidated {
		return append(list, commonName(s.Organization))
	}
	return append(list,
		attribute{asn1.ObjectIdentifier{2, 5, 4, 42}, s.GivenName, cbasn1.UTF8String},
		attribute{asn1.ObjectIdentifier{2, 5, 4, 4}, s.Surname, cbasn1.UTF8String},
		commonName(s.CommonName))
}

func commonName(value string) attribute {
	return attribute{asn1.ObjectIdentifier{2, 5, 4, 3}, value, cbasn1.UTF8String}
}

func addName(b *cryptobyte.Builder, attributes []attribute) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, a := range attributes {
			if a.value == "" {
				continue // the lint says whether the profile can do without
			}
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(a.oid)
					b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
				})
			})
		}
	})
}

// content is everything that a leaf's to-be-signed part is made of.
type content struct {
	serial    Serial
	algorithm []byte // AlgorithmIdentifier of the signature, DER
	issuer    []byte // Name, DER
	notBefore time.Time
	notAfter  time.Time
	subject   Subject
	profile   Profile
	kind      string
	spki      []byte
	fixed     []byte // extensions that are the same for all, DER
}

// encode gives the TBSCertificate. It is built by hand because the very same
// octets are linted and then signed, and because CreateCertificate of the
// standard library would sign and verify twice for that.
func (c content) encode() ([]byte, error) {
	if len(c.subject.Mailboxes) == 0 {
		return nil, errors.New("encode certificate: no mailbox")
	}
	keyID, err := subjectKeyID(c.spki)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1BigInt(c.serial.Int())
		b.AddBytes(c.algorithm)
		b.AddBytes(c.issuer)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, c.notBefore)
			addTime(b, c.notAfter)
		})
		addName(b, c.subject.attributes(c.profile.Validation))
		b.AddBytes(c.spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { c.addExtensions(b, keyID) })
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return der, nil
}

// addTime writes UTCTime up to 2049 and GeneralizedTime from then on (RFC 5280, 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC()
	if t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

func (c content) addExtensions(b *cryptobyte.Builder, keyID []byte) {
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 15}, true, func(b *cryptobyte.Builder) {
		bits := c.profile.usage(c.kind)
		unused := 0
		for bits>>unused&1 == 0 && unused < 7 {
			unused++
		}
		b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{byte(unused), bits}) })
	})
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 14}, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(keyID) })
	// Critical where it alone says whose the certificate is (RFC 5280, 4.2.1.6).
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 17}, len(c.subject.attributes(c.profile.Validation)) == 0, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, mailbox := range c.subject.Mailboxes {
				b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(mailbox)) })
			}
		})
	})
	b.AddBytes(c.fixed)
	if c.profile.Encrypt {
		addCapabilities(b)
	}
}

// addCapabilities says which ciphers partners may use (RFC 4262): AES-256-CBC and AES-128-CBC.
func addCapabilities(b *cryptobyte.Builder) {
	addExtension(b, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 15}, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, last := range []int{42, 2} {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, last})
				})
			}
		})
	})
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// subjectKeyID is the SHA-1 of the key's bits, the first method of RFC 5280, 4.2.1.2.
func subjectKeyID(spki []byte) ([]byte, error) {
	input := cryptobyte.String(spki)
	var body, algorithm cryptobyte.String
	var bits asn1.BitString
	if !input.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!body.ReadASN1BitString(&bits) {
		return nil, errors.New("encode certificate: public key cannot be read")
	}
	sum := sha1.Sum(bits.Bytes) //nolint:gosec // see the import
	return sum[:], nil
}
