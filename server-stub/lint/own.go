package lint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The limits of the S/MIME Baseline Requirements.
const (
	maxLife         = 825 * 24 * time.Hour // BR 6.3.2
	minSerialOctets = 8                    // BR 7.1: 64 bits from a CSPRNG fit in no less
	minRSABits      = 2048                 // BR 6.1.5
)

// own runs the checks that zlint misses, named as in the project's list.
func own(cert *x509.Certificate) []Finding {
	var found []Finding
	for _, check := range []struct {
		name string
		run  func(*x509.Certificate) string
	}{
		{"Z1", validity}, {"Z2", serial}, {"Z3", foreignNames},
		{"Z4", organizationIdentifier}, {"Z5", postalAddress}, {"Z6", mixedNames},
		{"Z7", modulusOctets}, {"Z8", modulusLength}, {"Z9", curve}, {"Z10", fermat},
	} {
		if detail := check.run(cert); detail != "" {
			found = append(found, Finding{Check: check.name, Detail: detail})
		}
	}
	return found
}

// validity counts the begun second over whole days, as BR 6.3.2 does.
func validity(cert *x509.Certificate) string {
	life := cert.NotAfter.Sub(cert.NotBefore) + time.Second
	if life > maxLife {
		return fmt.Sprintf("valid for %.1f days, more than 825 (BR 6.3.2)", life.Hours()/24)
	}
	if life <= time.Second {
		return "ends before it begins"
	}
	return ""
}

// serial looks at the length only; that no two are equal is the store's care,
// and that they are random is shown by the generator's own test.
func serial(cert *x509.Certificate) string {
	if n := len(cert.SerialNumber.Bytes()); cert.SerialNumber.Sign() <= 0 || n < minSerialOctets {
		return fmt.Sprintf("serial number of %d octets has no 64 random bits (BR 7.1)", n)
	}
	return ""
}

// The tags of GeneralName (RFC 5280, 4.2.1.6).
const (
	tagOtherName     = 0
	tagRFC822Name    = 1
	tagDirectoryName = 4
)

// foreignNames allows in the SAN what BR 7.1.4.2.1 does in a Strict certificate.
func foreignNames(cert *x509.Certificate) string {
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		return foreignIn(ext.Value)
	}
	return ""
}

func foreignIn(san []byte) string {
	input := cryptobyte.String(san)
	var names cryptobyte.String
	if !input.ReadASN1(&names, cbasn1.SEQUENCE) || !input.Empty() {
		return "subjectAltName cannot be read"
	}
	for !names.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return "subjectAltName cannot be read"
		}
		switch tag &^ 0xe0 { // the class and form bits
		case tagRFC822Name, tagDirectoryName:
		case tagOtherName:
			if !smtpUTF8Mailbox(name) {
				return "subjectAltName has an otherName that is no SmtpUTF8Mailbox (BR 7.1.4.2.1)"
			}
		default:
			return fmt.Sprintf("subjectAltName has a name of type %d (BR 7.1.4.2.1)", tag&^0xe0)
		}
	}
	return ""
}

// smtpUTF8Mailbox says whether an otherName is of RFC 9598's kind.
func smtpUTF8Mailbox(name cryptobyte.String) bool {
	var oid asn1.ObjectIdentifier
	return name.ReadASN1ObjectIdentifier(&oid) && oid.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 9})
}

// The arcs of the reserved policy OIDs (BR 7.1.6.1), without the last number.
const (
	arcOrganization = "2.23.140.1.5.2."
	arcSponsor      = "2.23.140.1.5.3."
	arcSMIME        = "2.23.140.1.5."
)

func hasPolicy(cert *x509.Certificate, prefix, suffix string) bool {
	return slices.ContainsFunc(cert.Policies, func(oid x509.OID) bool {
		s := oid.String()
		return strings.HasPrefix(s, prefix) && strings.HasSuffix(s, suffix)
	})
}

func hasAttribute(cert *x509.Certificate, oids ...asn1.ObjectIdentifier) bool {
	for _, name := range cert.Subject.Names {
		if slices.ContainsFunc(oids, name.Type.Equal) {
			return true
		}
	}
	return false
}

func organizationIdentifier(cert *x509.Certificate) string {
	if !hasPolicy(cert, arcOrganization, "") && !hasPolicy(cert, arcSponsor, "") {
		return ""
	}
	if !hasAttribute(cert, asn1.ObjectIdentifier{2, 5, 4, 97}) {
		return "subject has no organizationIdentifier (BR 7.1.4.2.4, 7.1.4.2.5)"
	}
	return ""
}

func postalAddress(cert *x509.Certificate) string {
	strict := hasPolicy(cert, arcSMIME, ".3")
	if strict && hasAttribute(cert, asn1.ObjectIdentifier{2, 5, 4, 9}, asn1.ObjectIdentifier{2, 5, 4, 17}) {
		return "a Strict certificate has streetAddress or postalCode (BR 7.1.4.2.4 to .6)"
	}
	return ""
}

func mixedNames(cert *x509.Certificate) string {
	pseudonym := hasAttribute(cert, asn1.ObjectIdentifier{2, 5, 4, 65})
	if pseudonym && hasAttribute(cert, asn1.ObjectIdentifier{2, 5, 4, 42}, asn1.ObjectIdentifier{2, 5, 4, 4}) {
		return "subject has a pseudonym beside givenName or surname (BR 7.1.4.2.2 e, f)"
	}
	return ""
}

func modulusOctets(cert *x509.Certificate) string {
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen()%8 != 0 {
		return fmt.Sprintf("RSA modulus of %d bits is not of whole octets (BR 6.1.5)", key.N.BitLen())
	}
	return ""
}

func modulusLength(cert *x509.Certificate) string {
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits {
		return fmt.Sprintf("RSA modulus of %d bits is below 2048 (BR 6.1.5)", key.N.BitLen())
	}
	return ""
}

func curve(cert *x509.Certificate) string {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return ""
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521() {
			return ""
		}
		return "curve is none of P-256, P-384, P-521 (BR 6.1.5)"
	default:
		// Ed25519 and Ed448 are allowed by BR 6.1.5 but by none of our profiles.
		return fmt.Sprintf("key of type %T is not for our profiles", cert.PublicKey)
	}
}
