package enroll

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
)

// Object identifiers that the checks read.
var (
	oidSAN             = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSmtpUTF8Mailbox = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 9} // RFC 9598 §3
	oidEmailAddress    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	oidCommonName      = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSurname         = asn1.ObjectIdentifier{2, 5, 4, 4}
	oidStreet          = asn1.ObjectIdentifier{2, 5, 4, 9}
	oidPostalCode      = asn1.ObjectIdentifier{2, 5, 4, 17}
	oidGivenName       = asn1.ObjectIdentifier{2, 5, 4, 42}
	oidPseudonym       = asn1.ObjectIdentifier{2, 5, 4, 65}
	oidOrganizationID  = asn1.ObjectIdentifier{2, 5, 4, 97}
)

// GeneralName's context tags (RFC 5280 §4.2.1.6).
const (
	tagOtherName     = 0
	tagRFC822Name    = 1
	tagDirectoryName = 4
)

// foldMailbox makes two spellings of one address equal. RFC 5280 §7.5 compares
// the local part exactly and the host without regard to ASCII case.
func foldMailbox(m string) string {
	at := strings.LastIndexByte(m, '@')
	if at < 0 {
		return m
	}
	return m[:at] + strings.Map(lowerASCII, m[at:])
}

func lowerASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

func mailboxSet(ms []string) map[string]bool {
	set := make(map[string]bool, len(ms))
	for _, m := range ms {
		set[foldMailbox(m)] = true
	}
	return set
}

func sameMailboxes(a, b []string) bool {
	x, y := mailboxSet(a), mailboxSet(b)
	if len(x) != len(y) {
		return false
	}
	for m := range x {
		if !y[m] {
			return false
		}
	}
	return true
}

// checkNames demands exactly the ordered mailboxes in the subjectAltName, and
// beside them nothing that could speak for a host (BR §7.1.4.2.1).
func checkNames(leaf *x509.Certificate, r ChainRules) *ChainError {
	found, others, err := altNames(leaf)
	if err != nil {
		return &ChainError{Check: "names", Err: err}
	}
	wanted := mailboxSet(r.Mailboxes)
	if len(wanted) == 0 {
		return fails("mailbox", "no mailbox was ordered")
	}
	have := mailboxSet(found)
	for m := range wanted {
		if !have[m] {
			return fails("mailbox", "%s is not in the certificate", m)
		}
	}
	for m := range have {
		if !wanted[m] {
			return fails("mailbox", "%s was not ordered", m)
		}
	}
	// A user principal name, for example, may stand only in Multipurpose.
	if others > 0 && generationOf(leaf) != multipurpose {
		return fails("names", "%d otherNames in the subjectAltName", others)
	}
	return nil
}

// altNames gives the mailboxes and the number of otherNames that are none. Any
// other kind of name but a directoryName is an error.
func altNames(leaf *x509.Certificate) (mailboxes []string, others int, err error) {
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(oidSAN) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(ext.Value, &names); err != nil || len(rest) > 0 {
			return nil, 0, fails("names", "subjectAltName cannot be read")
		}
		for _, n := range names {
			switch {
			case n.Class != asn1.ClassContextSpecific:
				return nil, 0, fails("names", "name of class %d", n.Class)
			case n.Tag == tagRFC822Name:
				mailboxes = append(mailboxes, string(n.Bytes))
			case n.Tag == tagOtherName:
				m, ok := utf8Mailbox(n)
				if ok {
					mailboxes = append(mailboxes, m)
				} else {
					others++
				}
			case n.Tag == tagDirectoryName:
			default:
				return nil, 0, fails("names", "name of kind %d in the subjectAltName", n.Tag)
			}
		}
	}
	return mailboxes, others, nil
}

func utf8Mailbox(n asn1.RawValue) (string, bool) {
	var other struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue `asn1:"tag:0,explicit"`
	}
	if _, err := asn1.UnmarshalWithParams(n.FullBytes, &other, "tag:0"); err != nil || !other.ID.Equal(oidSmtpUTF8Mailbox) {
		return "", false
	}
	if other.Value.Tag != asn1.TagUTF8String {
		return "", false
	}
	return string(other.Value.Bytes), true
}

// checkSubject: an address in the subject must be in the subjectAltName too,
// and what a reserved policy OID asserts must be so (BR §7.1.4.2).
func checkSubject(leaf *x509.Certificate, _ ChainRules) *ChainError {
	found, _, err := altNames(leaf)
	if err != nil {
		return &ChainError{Check: "names", Err: err}
	}
	have := mailboxSet(found)
	for _, a := range leaf.Subject.Names {
		v, ok := a.Value.(string)
		address := a.Type.Equal(oidEmailAddress) || a.Type.Equal(oidCommonName) && looksLikeMailbox(v)
		if address && (!ok || !have[foldMailbox(v)]) {
			return fails("subject", "address in the subject is not in the subjectAltName")
		}
	}
	has := func(oid asn1.ObjectIdentifier) bool { return hasAttribute(leaf.Subject, oid) }
	kind, generation := reservedPolicy(leaf)
	switch {
	case (kind == organizationValidated || kind == sponsorValidated) && !has(oidOrganizationID):
		return fails("subject", "no organizationIdentifier")
	case generation == strict && (has(oidStreet) || has(oidPostalCode)):
		return fails("subject", "street or postal code in a Strict certificate")
	case has(oidPseudonym) && (has(oidGivenName) || has(oidSurname)):
		return fails("subject", "pseudonym beside a name")
	}
	return nil
}

func looksLikeMailbox(s string) bool {
	return strings.Contains(s, "@") && !strings.ContainsAny(s, " \t")
}

func hasAttribute(name pkix.Name, oid asn1.ObjectIdentifier) bool {
	for _, a := range name.Names {
		if a.Type.Equal(oid) {
			return true
		}
	}
	return false
}
