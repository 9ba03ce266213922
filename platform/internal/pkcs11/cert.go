//go:build cgo || windows

package pkcs11

import (
	"bytes"
	"crypto/md5"  //nolint:gosec // an attribute of NSS's trust objects
	"crypto/sha1" //nolint:gosec // an attribute of NSS's trust objects
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// NSS's own names, from nss/lib/util/pkcs11n.h.
const (
	ckoNSSTrust = 0xCE534353
	ckaNSSEmail = 0xCE534352

	ckaTrustServerAuth      = 0xCE536358
	ckaTrustClientAuth      = 0xCE536359
	ckaTrustCodeSigning     = 0xCE53635A
	ckaTrustEmailProtection = 0xCE53635B
	ckaTrustStepUpApproved  = 0xCE536360
	ckaCertSHA1Hash         = 0xCE5363B4
	ckaCertMD5Hash          = 0xCE5363B5

	cktNSSTrustedDelegator = 0xCE534352
	cktNSSMustVerify       = 0xCE534353
)

// Filed is a certificate in the token.
type Filed struct {
	Object Object
	ID     []byte
	Cert   *x509.Certificate
}

// Certificates lists the token's certificates. What Go cannot parse is left
// out: one odd certificate of somebody else must not hide the others.
func (s *Session) Certificates() ([]Filed, error) {
	objects, err := s.find(attribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE),
		attribute(p11.CKA_CERTIFICATE_TYPE, p11.CKC_X_509), attribute(p11.CKA_TOKEN, true))
	if err != nil {
		return nil, err
	}
	var filed []Filed
	for _, o := range objects {
		values := s.getSome(o, p11.CKA_VALUE, p11.CKA_ID)
		cert, err := x509.ParseCertificate(values[0])
		if err != nil {
			continue
		}
		filed = append(filed, Filed{Object: o, ID: values[1], Cert: cert})
	}
	return filed, nil
}

// CertificatesNamed lists the certificates whose label fits.
func (s *Session) CertificatesNamed(fits func(label string) bool) ([]Filed, error) {
	objects, err := s.find(attribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE),
		attribute(p11.CKA_CERTIFICATE_TYPE, p11.CKC_X_509), attribute(p11.CKA_TOKEN, true))
	if err != nil {
		return nil, err
	}
	var filed []Filed
	for _, o := range objects {
		values := s.getSome(o, p11.CKA_LABEL, p11.CKA_VALUE, p11.CKA_ID)
		if !fits(string(values[0])) {
			continue
		}
		if cert, err := x509.ParseCertificate(values[1]); err == nil {
			filed = append(filed, Filed{Object: o, ID: values[2], Cert: cert})
		}
	}
	return filed, nil
}

// HasKey says whether half a key or a whole one has this CKA_ID. Private halves
// are seen only after a login, public ones always.
func (s *Session) HasKey(id []byte) (bool, error) {
	for _, class := range []uint{p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY} {
		found, err := s.find(attribute(p11.CKA_CLASS, class), attribute(p11.CKA_TOKEN, true), attribute(p11.CKA_ID, id))
		if err != nil || len(found) > 0 {
			return len(found) > 0, err
		}
	}
	return false, nil
}

// CertificateSpec is how a certificate is filed.
type CertificateSpec struct {
	Label string
	// ID is the key's, or an issuer's subjectKeyIdentifier; may be empty.
	ID []byte
	// Email is for NSS only; empty leaves it out.
	Email string
}

// PutCertificate files a certificate. If it is there, only its ID is set
// right: without the key's ID no program finds the key.
func (s *Session) PutCertificate(cert *x509.Certificate, spec CertificateSpec) error {
	present, err := s.certificateObjects(cert)
	if err != nil {
		return err
	}
	if len(present) > 0 {
		if len(spec.ID) == 0 || bytes.Equal(s.getIfAny(present[0], p11.CKA_ID), spec.ID) {
			return nil
		}
		return s.set(present[0], p11.CKA_ID, spec.ID)
	}
	return s.createCertificate(cert, spec)
}

// AddCertificate files a certificate; one that is there stays as it is.
func (s *Session) AddCertificate(cert *x509.Certificate, spec CertificateSpec) error {
	present, err := s.certificateObjects(cert)
	if err != nil || len(present) > 0 {
		return err
	}
	return s.createCertificate(cert, spec)
}

func (s *Session) createCertificate(cert *x509.Certificate, spec CertificateSpec) error {
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return fmt.Errorf("encode serial number: %w", err)
	}
	template := []*attr{
		attribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE), attribute(p11.CKA_CERTIFICATE_TYPE, p11.CKC_X_509),
		attribute(p11.CKA_TOKEN, true), attribute(p11.CKA_PRIVATE, false),
		attribute(p11.CKA_LABEL, spec.Label), attribute(p11.CKA_ID, spec.ID),
		attribute(p11.CKA_SUBJECT, cert.RawSubject), attribute(p11.CKA_ISSUER, cert.RawIssuer),
		attribute(p11.CKA_SERIAL_NUMBER, serial), attribute(p11.CKA_VALUE, cert.Raw),
	}
	if spec.Email != "" {
		template = append(template, attribute(ckaNSSEmail, spec.Email))
	}
	if _, err := s.c.CreateObject(s.h, template); err != nil {
		return fmt.Errorf("file certificate: %w", err)
	}
	return nil
}

func (s *Session) certificateObjects(cert *x509.Certificate) ([]Object, error) {
	return s.find(attribute(p11.CKA_CLASS, p11.CKO_CERTIFICATE), attribute(p11.CKA_TOKEN, true),
		attribute(p11.CKA_VALUE, cert.Raw))
}

// RemoveCertificate takes a certificate away, and NSS's trust in it.
func (s *Session) RemoveCertificate(cert *x509.Certificate, nss bool) error {
	objects, err := s.certificateObjects(cert)
	if err != nil {
		return err
	}
	if nss {
		trust, err := s.trustObjects(cert)
		if err != nil {
			return err
		}
		objects = append(trust, objects...)
	}
	for _, o := range objects {
		if err := s.Destroy(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) trustObjects(cert *x509.Certificate) ([]Object, error) {
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return nil, fmt.Errorf("encode serial number: %w", err)
	}
	return s.find(attribute(p11.CKA_CLASS, uint(ckoNSSTrust)), attribute(p11.CKA_TOKEN, true),
		attribute(p11.CKA_ISSUER, cert.RawIssuer), attribute(p11.CKA_SERIAL_NUMBER, serial))
}

// TrustForEmail makes NSS trust an anchor for e-mail, as `certutil -A -t ,C,`
// does. What is already said about other uses stays as it is.
func (s *Session) TrustForEmail(cert *x509.Certificate) error {
	present, err := s.trustObjects(cert)
	if err != nil {
		return err
	}
	if len(present) > 0 {
		trusted := attribute(ckaTrustEmailProtection, uint(cktNSSTrustedDelegator))
		if bytes.Equal(s.getIfAny(present[0], ckaTrustEmailProtection), trusted.Value) {
			return nil // another write would cost the database a transaction
		}
		return s.set(present[0], ckaTrustEmailProtection, uint(cktNSSTrustedDelegator))
	}
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return fmt.Errorf("encode serial number: %w", err)
	}
	sha := sha1.Sum(cert.Raw) //nolint:gosec // see above
	md := md5.Sum(cert.Raw)   //nolint:gosec // see above
	_, err = s.c.CreateObject(s.h, []*attr{
		attribute(p11.CKA_CLASS, uint(ckoNSSTrust)),
		attribute(p11.CKA_TOKEN, true), attribute(p11.CKA_PRIVATE, false),
		attribute(p11.CKA_ISSUER, cert.RawIssuer), attribute(p11.CKA_SERIAL_NUMBER, serial),
		attribute(ckaCertSHA1Hash, sha[:]), attribute(ckaCertMD5Hash, md[:]),
		attribute(ckaTrustEmailProtection, uint(cktNSSTrustedDelegator)),
		attribute(ckaTrustServerAuth, uint(cktNSSMustVerify)),
		attribute(ckaTrustClientAuth, uint(cktNSSMustVerify)),
		attribute(ckaTrustCodeSigning, uint(cktNSSMustVerify)),
		attribute(ckaTrustStepUpApproved, false),
	})
	if err != nil {
		return fmt.Errorf("trust anchor: %w", err)
	}
	return nil
}
