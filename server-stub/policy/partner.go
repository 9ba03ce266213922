package policy

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"
)

// The bounds of a set, which are the contract's.
const (
	MaxPartners      = 1000
	MaxPartnersBytes = 2 << 20
	// MaxPartnerFile bounds one file.
	MaxPartnerFile = 192 << 10
)

// NoPartners is the digest of an empty set.
const NoPartners = "none"

// endsSoon is how long before its end a certificate is warned of.
const endsSoon = 30 * 24 * time.Hour

// PartnerFile is one file's name and content.
type PartnerFile struct {
	Name    string
	Content []byte
}

// finding is something to say about a file.
type finding struct {
	File string
	Line int
	What string
	Cure string
	// Warning leaves the certificate in the set, or out of it, without stopping
	// the policy.
	Warning bool
}

// PartnerSet is what the files come to.
type PartnerSet struct {
	// Certificates are in the order of their SHA-256, whatever that of the files, so that
	// all servers that have them hand out the same set; none is there twice.
	Certificates []*x509.Certificate
	// Digest names the set.
	Digest string
}

// Raw gives the certificates as DER.
func (s PartnerSet) Raw() [][]byte {
	raw := make([][]byte, 0, len(s.Certificates))
	for _, c := range s.Certificates {
		raw = append(raw, c.Raw)
	}
	return raw
}

// readPartners reads the files. With a finding that is no warning the set is of no use.
func readPartners(files []PartnerFile, now time.Time) (PartnerSet, []finding) {
	r := &partnerReader{now: now, seen: map[string]bool{}}
	for _, f := range files {
		r.read(f)
	}
	if size := r.size(); len(r.set) > MaxPartners || size > MaxPartnersBytes {
		r.find(PartnerFile{Name: files[0].Name}, 1, "Take out those that nobody writes to; a large number belongs into an LDAP directory.",
			"The partners' certificates are %d with %d bytes; at most %d with %d bytes go to each machine.", len(r.set), size, MaxPartners, MaxPartnersBytes)
	}
	slices.SortFunc(r.set, func(a, b *x509.Certificate) int {
		first, second := sha256.Sum256(a.Raw), sha256.Sum256(b.Raw)
		return bytes.Compare(first[:], second[:])
	})
	return PartnerSet{Certificates: r.set, Digest: DigestOf(r.set)}, r.findings
}

// DigestOf names a set: the SHA-256, in hex, of the SHA-256s of its certificates
// in order; [NoPartners] if there are none.
func DigestOf(certs []*x509.Certificate) string {
	if len(certs) == 0 {
		return NoPartners
	}
	sums := make([][]byte, 0, len(certs))
	for _, c := range certs {
		sum := sha256.Sum256(c.Raw)
		sums = append(sums, sum[:])
	}
	slices.SortFunc(sums, bytes.Compare)
	all := sha256.Sum256(bytes.Join(sums, nil))
	return hex.EncodeToString(all[:])
}

type partnerReader struct {
	now      time.Time
	set      []*x509.Certificate
	seen     map[string]bool
	findings []finding
}

func (r *partnerReader) size() int {
	n := 0
	for _, c := range r.set {
		n += len(c.Raw)
	}
	return n
}

func (r *partnerReader) find(f PartnerFile, line int, cure, what string, args ...any) {
	r.findings = append(r.findings, finding{File: f.Name, Line: line, What: fmt.Sprintf(what, args...), Cure: cure})
}

func (r *partnerReader) warn(f PartnerFile, line int, cure, what string, args ...any) {
	r.find(f, line, cure, what, args...)
	r.findings[len(r.findings)-1].Warning = true
}

// placed is a certificate with the line where it begins.
type placed struct {
	cert *x509.Certificate
	line int
}

func (r *partnerReader) read(f PartnerFile) {
	if len(f.Content) > MaxPartnerFile {
		r.find(f, 1, "Export the certificates of the people alone.", "The file has more than %d bytes.", MaxPartnerFile)
		return
	}
	places, ok := r.certificates(f)
	if !ok {
		return
	}
	if len(places) == 0 {
		r.find(f, 1, "Export the certificate again, as .cer, .pem or .p7b.", "There is no certificate in the file.")
	}
	for _, p := range places {
		r.take(f, p, places)
	}
}

// certificates reads PEM, DER, or PKCS #7 in either form.
func (r *partnerReader) certificates(f PartnerFile) ([]placed, bool) {
	if !bytes.Contains(f.Content, []byte("-----BEGIN ")) {
		return r.binary(f, f.Content, 1)
	}
	var all []placed
	rest, line := f.Content, 1
	for {
		begin := bytes.Index(rest, []byte("-----BEGIN "))
		if begin < 0 {
			return all, true
		}
		line += bytes.Count(rest[:begin], []byte("\n"))
		block, after := pem.Decode(rest[begin:]) // which steps over what it cannot read
		label, _, _ := bytes.Cut(rest[begin:], []byte("\n"))
		if bytes.Contains(label, []byte("PRIVATE KEY")) || block != nil && strings.Contains(block.Type, "PRIVATE KEY") {
			r.find(f, line, "Delete the file everywhere, tell the partner that the key is no longer secret, and ask for a certificate alone.", "There is a private key in the file.")
			return nil, false
		}
		if block == nil {
			r.find(f, line, "Export the certificate again.", "The PEM text that begins here cannot be read.")
			return nil, false
		}
		switch block.Type {
		case "CERTIFICATE", "PKCS7", "CMS":
			found, ok := r.binary(f, block.Bytes, line)
			if !ok {
				return nil, false
			}
			all = append(all, found...)
		}
		line += bytes.Count(rest[begin:len(rest)-len(after)], []byte("\n"))
		rest = after
	}
}

func (r *partnerReader) binary(f PartnerFile, der []byte, line int) ([]placed, bool) {
	if c, err := x509.ParseCertificate(der); err == nil {
		return []placed{{c, line}}, true
	}
	p7, err := parse7(der)
	if err != nil {
		r.find(f, line, "Export the certificate again, as .cer, .pem or .p7b; of a .p12 or .pfx, which holds a private key, the certificate alone.",
			"This is neither a certificate nor a PKCS #7 file.")
		return nil, false
	}
	var all []placed
	for _, c := range p7.Certificates {
		all = append(all, placed{c, line})
	}
	return all, true
}

// parse7 keeps a fault of the parser from ending the server.
func parse7(der []byte) (p *pkcs7.PKCS7, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("parse PKCS #7: %v", broken)
		}
	}()
	return pkcs7.Parse(der)
}

func (r *partnerReader) take(f PartnerFile, p placed, all []placed) {
	who := fmt.Sprintf("The certificate of %q", p.cert.Subject.CommonName)
	switch {
	case p.cert.IsCA && issues(p.cert, all):
		if !bytes.Equal(p.cert.RawIssuer, p.cert.RawSubject) { // a root is never handed out: whom to trust is not decided here
			r.add(p.cert)
		}
		return
	case p.cert.IsCA:
		r.find(f, p.line, "Take it out. Whom to trust is decided by the deployment's anchors and by device management, not by this list.", "%s is that of a CA, not of a person.", who)
		return
	case len(p.cert.EmailAddresses) == 0:
		r.find(f, p.line, "Ask the partner for a certificate for e-mail.", "%s names no e-mail address, so no mail program finds it.", who)
		return
	case len(p.cert.ExtKeyUsage)+len(p.cert.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(p.cert.ExtKeyUsage, forMail):
		r.find(f, p.line, "Ask the partner for a certificate for e-mail.", "%s is not for e-mail (extended key usage).", who)
		return
	case p.cert.KeyUsage != 0 && p.cert.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0:
		r.find(f, p.line, "Ask the partner for the certificate to encrypt to.", "%s is for signing only, so nobody can encrypt to it.", who)
		return
	case r.now.After(p.cert.NotAfter):
		r.warn(f, p.line, "Ask the partner for the new one.", "%s ended on %s and is left out.", who, p.cert.NotAfter.UTC().Format(time.DateOnly))
		return
	case r.now.Before(p.cert.NotBefore):
		r.warn(f, p.line, "Look whether the partner has one that holds already.", "%s begins on %s; mail programs do not use it before.", who, p.cert.NotBefore.UTC().Format(time.DateOnly))
	case r.now.Add(endsSoon).After(p.cert.NotAfter):
		r.warn(f, p.line, "Ask the partner for the new one in time.", "%s ends on %s.", who, p.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	r.add(p.cert)
}

func (r *partnerReader) add(c *x509.Certificate) {
	if !r.seen[string(c.Raw)] {
		r.seen[string(c.Raw)] = true
		r.set = append(r.set, c)
	}
}

func forMail(u x509.ExtKeyUsage) bool {
	return u == x509.ExtKeyUsageEmailProtection || u == x509.ExtKeyUsageAny
}

// issues says that the CA issued something else in the same file.
func issues(ca *x509.Certificate, all []placed) bool {
	return slices.ContainsFunc(all, func(p placed) bool {
		return !p.cert.Equal(ca) && bytes.Equal(p.cert.RawIssuer, ca.RawSubject) && p.cert.CheckSignatureFrom(ca) == nil
	})
}
