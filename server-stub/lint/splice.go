package lint

import (
	stdx509 "crypto/x509"
	"errors"
	"maps"

	"github.com/zmap/zcrypto/encoding/asn1"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zcrypto/x509/pkix"
)

// splice gives the certificate as zcrypto would read it, from a sample with the
// same skeleton and what differs from it: a test holds the two side by side. It
// leaves out ValidationLevel, which is about web servers, and the fingerprints: none
// of the lints reads them, which a test sees to.
func splice(sample *zx509.Certificate, p parts, der []byte, cert *stdx509.Certificate) (*zx509.Certificate, error) {
	out := *sample
	out.Raw, out.RawTBSCertificate, out.RawSubject, out.RawSubjectPublicKeyInfo = der, p.tbs, p.subject, p.spki
	out.FingerprintMD5, out.FingerprintSHA1, out.FingerprintSHA256 = nil, nil, nil
	out.SPKIFingerprint, out.SPKISubjectFingerprint, out.TBSCertificateFingerprint, out.FingerprintNoCT = nil, nil, nil, nil
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(p.subject, &subject); err != nil || len(rest) > 0 {
		return nil, errors.Join(errors.New("the subject cannot be read"), err)
	}
	out.Subject = pkix.Name{}
	out.Subject.FillFromRDNSequence(&subject)
	var err error
	if out.PublicKey, err = zx509.ParsePKIXPublicKey(p.spki); err != nil {
		return nil, err
	}
	out.SerialNumber, out.NotBefore, out.NotAfter = cert.SerialNumber, cert.NotBefore, cert.NotAfter
	out.ValidityPeriod = int(out.NotAfter.Sub(out.NotBefore).Seconds())
	out.EmailAddresses, out.SubjectKeyId = p.mailboxes, cert.SubjectKeyId
	if len(cert.Extensions) != len(sample.Extensions) {
		return nil, errors.New("the extensions are not those of the sample")
	}
	out.Extensions = make([]pkix.Extension, len(sample.Extensions))
	out.ExtensionsMap = maps.Clone(sample.ExtensionsMap)
	for i, extension := range sample.Extensions {
		if id := extension.Id.String(); id == "2.5.29.17" || id == "2.5.29.14" {
			extension.Value = cert.Extensions[i].Value
			out.ExtensionsMap[id] = extension
		}
		out.Extensions[i] = extension
	}
	return &out, nil
}
