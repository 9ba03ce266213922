package lint

import (
	"crypto/ecdsa"
	"crypto/rsa"
	stdx509 "crypto/x509"
	stdpkix "crypto/x509/pkix"
	"errors"
	"maps"

	"github.com/zmap/zcrypto/encoding/asn1"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zcrypto/x509/pkix"
)

// splice gives the certificate as zcrypto would read it, from a sample with the
// same skeleton and what differs from it, part of which the standard library has
// parsed already: a test holds the two side by side. It
// leaves out ValidationLevel, which is about web servers, and the fingerprints: none
// of the lints reads them, which a test sees to.
func splice(sample *zx509.Certificate, p parts, der []byte, cert *stdx509.Certificate) (*zx509.Certificate, error) {
	out := *sample
	out.Raw, out.RawTBSCertificate, out.RawSubject, out.RawSubjectPublicKeyInfo = der, p.tbs, p.subject, p.spki
	out.FingerprintMD5, out.FingerprintSHA1, out.FingerprintSHA256 = nil, nil, nil
	out.SPKIFingerprint, out.SPKISubjectFingerprint, out.TBSCertificateFingerprint, out.FingerprintNoCT = nil, nil, nil, nil
	subject, err := namesOf(p, cert)
	if err != nil {
		return nil, err
	}
	out.Subject = pkix.Name{}
	out.Subject.FillFromRDNSequence(&subject)
	if out.PublicKey, err = keyOf(p, cert); err != nil {
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
		if key, yes := differs(extension.Id); yes {
			extension.Value = cert.Extensions[i].Value
			out.ExtensionsMap[key] = extension
		}
		out.Extensions[i] = extension
	}
	return &out, nil
}

// differs says that an extension's value is not in the skeleton, and its key in zcrypto's map.
func differs(id asn1.ObjectIdentifier) (key string, yes bool) {
	if len(id) != 4 || id[0] != 2 || id[1] != 5 || id[2] != 29 {
		return "", false
	}
	switch id[3] {
	case 17:
		return "2.5.29.17", true // subjectAltName
	case 14:
		return "2.5.29.14", true // subjectKeyIdentifier
	}
	return "", false
}

// namesOf gives the subject. In a plain one each set has one attribute, a text
// that both libraries read alike.
func namesOf(p parts, cert *stdx509.Certificate) (pkix.RDNSequence, error) {
	if p.plain {
		return oneByOne(cert.Subject.Names), nil
	}
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(p.subject, &subject); err != nil || len(rest) > 0 {
		return nil, errors.Join(errors.New("the subject cannot be read"), err)
	}
	return subject, nil
}

func oneByOne(names []stdpkix.AttributeTypeAndValue) pkix.RDNSequence {
	attributes := make([]pkix.AttributeTypeAndValue, len(names))
	sequence := make(pkix.RDNSequence, len(names))
	for i, name := range names {
		attributes[i] = pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier(name.Type), Value: name.Value}
		sequence[i] = attributes[i : i+1 : i+1]
	}
	return sequence
}

// keyOf gives the public key in zcrypto's form.
func keyOf(p parts, cert *stdx509.Certificate) (any, error) {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return key, nil
	case *ecdsa.PublicKey:
		return &zx509.AugmentedECDSA{Pub: key, Raw: asn1.BitString{Bytes: p.key, BitLength: 8 * len(p.key)}}, nil
	}
	return zx509.ParsePKIXPublicKey(p.spki)
}
