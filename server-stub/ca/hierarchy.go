package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"
)

// Lives of the CAs. The root outlives two issuing CAs.
const (
	rootLife      = 20 * 365 * 24 * time.Hour
	issuingLife   = 8 * 365 * 24 * time.Hour
	transportLife = 20 * 365 * 24 * time.Hour
)

// Founding is what a new hierarchy is told.
type Founding struct {
	Organization string
	Country      string
	Settings     Settings
	// RootCRLURL and RootURL are where the root's CRL and certificate are served.
	RootCRLURL string
	RootURL    string
	// RSA makes the root an RSA-4096 CA and the issuing CA RSA-3072; each certificate
	// then costs some ten times the CPU of a P-256 CA.
	RSA bool
	Now time.Time
}

// Pair is a certificate with its key.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Hierarchy is what founding a CA makes: a root that belongs offline, and the
// issuing CA below it.
type Hierarchy struct {
	Root    Pair
	Issuing Pair
	// RootCRL (DER) says that the issuing CA is not revoked.
	RootCRL []byte
}

// Found makes the S/MIME hierarchy.
func Found(f Founding) (*Hierarchy, error) {
	rootKey, err := newKey(f.RSA, 4096)
	if err != nil {
		return nil, err
	}
	issuingKey, err := newKey(f.RSA, 3072)
	if err != nil {
		return nil, err
	}
	serials := new(Serials)
	root := caTemplate(serials.Next(f.Now), f, "S/MIME Root CA", rootLife)
	rootPair, err := selfSign(root, rootKey)
	if err != nil {
		return nil, err
	}
	issuing, err := issuingTemplate(serials.Next(f.Now), f)
	if err != nil {
		return nil, err
	}
	issuingCert, err := signCertificate(issuing, rootPair, issuingKey.Public())
	if err != nil {
		return nil, err
	}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: serials.Next(f.Now).Int(), ThisUpdate: f.Now.Add(-Backdate), NextUpdate: f.Now.Add(RootListLife),
	}, rootPair.Cert, rootPair.Key)
	if err != nil {
		return nil, fmt.Errorf("sign the root's revocation list: %w", err)
	}
	return &Hierarchy{Root: rootPair, Issuing: Pair{Cert: issuingCert, Key: issuingKey}, RootCRL: crl}, nil
}

func caTemplate(serial Serial, f Founding, name string, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial.Int(),
		Subject: pkix.Name{
			Country: []string{f.Country}, Organization: []string{f.Organization},
			CommonName: f.Organization + " " + name,
		},
		NotBefore: f.Now.Add(-Backdate).UTC().Truncate(time.Second), NotAfter: f.Now.Add(life).UTC().Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func issuingTemplate(serial Serial, f Founding) (*x509.Certificate, error) {
	template := caTemplate(serial, f, "S/MIME Issuing CA", issuingLife)
	template.MaxPathLen, template.MaxPathLenZero = 0, true
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
	template.CRLDistributionPoints = []string{f.RootCRLURL}
	template.IssuingCertificateURL = []string{f.RootURL}
	for _, v := range []Validation{MailboxValidated, OrganizationValidated, SponsorValidated} {
		oids, err := policyOIDs(f.Settings, v)
		if err != nil {
			return nil, err
		}
		if !f.Settings.Reserved && v != SponsorValidated {
			continue // the company's own OID once is enough
		}
		if err := addPolicies(template, oids); err != nil {
			return nil, err
		}
	}
	return template, nil
}

func addPolicies(template *x509.Certificate, oids []asn1.ObjectIdentifier) error {
	for _, oid := range oids {
		parsed, err := x509.ParseOID(oid.String())
		if err != nil {
			return fmt.Errorf("set policy %s: %w", oid, err)
		}
		known := false
		for _, have := range template.Policies {
			known = known || have.Equal(parsed)
		}
		if !known {
			template.Policies = append(template.Policies, parsed)
		}
	}
	return nil
}

func newKey(useRSA bool, bits int) (crypto.Signer, error) {
	if useRSA {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, fmt.Errorf("make RSA key: %w", err)
		}
		return key, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make P-256 key: %w", err)
	}
	return key, nil
}

func selfSign(template *x509.Certificate, key crypto.Signer) (Pair, error) {
	cert, err := signCertificate(template, Pair{Cert: template, Key: key}, key.Public())
	return Pair{Cert: cert, Key: key}, err
}

func signCertificate(template *x509.Certificate, by Pair, public crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, by.Cert, public, by.Key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}
