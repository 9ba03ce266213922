package lint

import (
	"bytes"
	"slices"
	"sync"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// parts is a certificate taken apart.
type parts struct {
	tbs, subject, spki []byte
	// key is the content of the public key, whole octets.
	key []byte
	// plain is [plain] of the subject.
	plain bool
	// skeleton has what the certificates of one CA, profile and kind of key have in
	// common: everything but serial number, validity, subject, key, and the values of
	// subjectAltName and subjectKeyIdentifier. All have a subject, and times that are
	// UTCTime to the second in Zulu.
	skeleton string
	// mailboxes are the names of the subjectAltName, which has no others; at least one, and none is empty.
	mailboxes []string
}

// The extensions whose values differ from one certificate to the next, DER.
var (
	sanID = []byte{0x06, 0x03, 0x55, 0x1d, 0x11}
	skiID = []byte{0x06, 0x03, 0x55, 0x1d, 0x0e}
)

// split takes a certificate of our form apart; ok is false for any other form,
// be it good or bad.
func split(der []byte) (p parts, ok bool) {
	input := cryptobyte.String(der)
	var cert, tbs, body, issuer, extensions, element cryptobyte.String
	common := make([]byte, 0, len(der))
	version := cbasn1.Tag(0).ContextSpecific().Constructed()
	ok = input.ReadASN1(&cert, cbasn1.SEQUENCE) && input.Empty() && cert.ReadASN1Element(&tbs, cbasn1.SEQUENCE)
	p.tbs = tbs
	ok = ok && tbs.ReadASN1(&body, cbasn1.SEQUENCE) && body.ReadASN1Element(&element, version)
	common = append(append(common, element...), cert...) // version, and the signature with its algorithm
	ok = ok && body.SkipASN1(cbasn1.INTEGER) && body.ReadASN1Element(&element, cbasn1.SEQUENCE)
	common = append(common, element...)
	ok = ok && body.ReadASN1Element(&issuer, cbasn1.SEQUENCE) && body.ReadASN1(&element, cbasn1.SEQUENCE) && usualTimes(element)
	common = append(common, issuer...)
	ok = ok && body.ReadASN1Element((*cryptobyte.String)(&p.subject), cbasn1.SEQUENCE) &&
		body.ReadASN1Element((*cryptobyte.String)(&p.spki), cbasn1.SEQUENCE) &&
		body.ReadASN1(&element, cbasn1.Tag(3).ContextSpecific().Constructed()) && body.Empty() &&
		element.ReadASN1(&extensions, cbasn1.SEQUENCE) && element.Empty()
	spki := cryptobyte.String(p.spki)
	var key, algorithm cryptobyte.String
	ok = ok && spki.ReadASN1(&key, cbasn1.SEQUENCE) && key.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) && key.ReadASN1BitStringAsBytes(&p.key)
	common = append(common, algorithm...)
	if !ok || bytes.Equal(p.subject, issuer) || len(p.subject) <= 2 {
		return p, false // one that may be self-signed, or names nobody, is another matter
	}
	p.plain = plain(p.subject)
	ok = p.extensions(extensions, &common)
	p.skeleton = string(common)
	return p, ok
}

// usualTimes says that a Validity is two UTCTimes of the form YYMMDDHHMMSSZ.
func usualTimes(validity cryptobyte.String) bool {
	for range 2 {
		var moment cryptobyte.String
		if !validity.ReadASN1(&moment, cbasn1.UTCTime) || len(moment) != 13 || moment[12] != 'Z' {
			return false
		}
		for _, c := range moment[:12] {
			if c < '0' || c > '9' {
				return false
			}
		}
	}
	return validity.Empty()
}

func (p *parts) extensions(all cryptobyte.String, common *[]byte) bool {
	names := 0
	for !all.Empty() {
		var element, inner, value cryptobyte.String
		if !all.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			return false
		}
		whole := element
		if !element.ReadASN1(&inner, cbasn1.SEQUENCE) {
			return false
		}
		san, ski := bytes.HasPrefix(inner, sanID), bytes.HasPrefix(inner, skiID)
		if !san && !ski {
			*common = append(*common, whole...)
			continue
		}
		before := inner
		critical := false
		if !inner.SkipASN1(cbasn1.OBJECT_IDENTIFIER) || inner.PeekASN1Tag(cbasn1.BOOLEAN) && !inner.ReadASN1Boolean(&critical) {
			return false
		}
		*common = append(*common, before[:len(before)-len(inner)]...)
		if !inner.ReadASN1(&value, cbasn1.OCTET_STRING) || !inner.Empty() {
			return false
		}
		if san {
			names++
			if !p.names(value) {
				return false
			}
		}
	}
	return names == 1 && len(p.mailboxes) > 0
}

// names takes rfc822Names in ASCII, none of them empty, and nothing else.
func (p *parts) names(san cryptobyte.String) bool {
	var names, name cryptobyte.String
	if !san.ReadASN1(&names, cbasn1.SEQUENCE) || !san.Empty() {
		return false
	}
	for !names.Empty() {
		if !names.ReadASN1(&name, cbasn1.Tag(1).ContextSpecific()) {
			return false
		}
		if len(name) == 0 || slices.ContainsFunc(name, func(c byte) bool { return c >= 0x80 }) {
			return false
		}
		p.mailboxes = append(p.mailboxes, string(name))
	}
	return true
}

// skeleton is what is known of all certificates that have it.
type skeleton struct {
	// sample is one of them, as zcrypto reads it.
	sample *zx509.Certificate
	// findings are those of the fixed lints, and others the lints that each
	// certificate is to pass, for certificates that begin between from and until: lints
	// take effect at a date.
	findings    []Finding
	others      []*zlint.CertificateLint
	from, until time.Time
}

// skeletons holds the known ones.
type skeletons struct {
	mu    sync.Mutex
	known map[string]*skeleton
}

// maxSkeletons is many more than a CA has profiles and kinds of key.
const maxSkeletons = 256

func (s *skeletons) find(p parts, begin time.Time) *skeleton {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[p.skeleton]; k != nil && !begin.Before(k.from) && begin.Before(k.until) {
		return k
	}
	return nil
}

func (s *skeletons) keep(p parts, k *skeleton) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxSkeletons {
		s.known = map[string]*skeleton{}
	}
	s.known[p.skeleton] = k
}

// until is when a lint takes effect, or ends, next after a moment.
func until(moment time.Time, all ...[]*zlint.CertificateLint) time.Time {
	next := moment.AddDate(1, 0, 0)
	for _, l := range slices.Concat(all...) {
		for _, date := range []time.Time{l.EffectiveDate, l.IneffectiveDate} {
			if date.After(moment) && date.Before(next) {
				next = date
			}
		}
	}
	return next
}
