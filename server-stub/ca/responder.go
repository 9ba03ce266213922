package ca

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"time"
)

// ReasonCode is the CRLReason of RFC 5280, 5.3.1; 0 is "unspecified".
func ReasonCode(reason string) int { return reasonCodes()[reason] }

// IssueResponder signs the certificate of an OCSP responder, which may speak for
// this CA alone (RFC 6960, 4.2.2.2) and is not asked about itself (4.2.2.2.1).
func (i *Issuer) IssueResponder(public crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	subject := i.cert.Subject
	return signCertificate(&x509.Certificate{
		SerialNumber: i.Serials.Next(now).Int(),
		Subject:      pkix.Name{Country: subject.Country, Organization: subject.Organization, CommonName: subject.CommonName + " OCSP"},
		NotBefore:    now.Add(-Backdate).UTC().Truncate(time.Second), NotAfter: now.Add(life).UTC().Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1.NullBytes}}, // id-pkix-ocsp-nocheck
	}, Pair{Cert: i.cert, Key: i.key}, public)
}
