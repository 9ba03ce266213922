package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// CRLLife is how long a revocation list may be relied on: under the 10 days of BR 4.9.7.
const CRLLife = 7 * 24 * time.Hour

// Revocation is one line of the revocation list.
type Revocation struct {
	Serial Serial
	At     time.Time
	Reason string
}

// reasonCodes are those of RFC 5280, 5.3.1, that BR 7.2.2 leaves to a
// subscriber's certificate. "unspecified" is written by leaving the code out.
func reasonCodes() map[string]int {
	return map[string]int{
		"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3,
		"superseded": 4, "cessationOfOperation": 5, "privilegeWithdrawn": 9,
	}
}

// RootRevocation takes an issuing CA back. The reasons are those of RFC 5280,
// 5.3.1, that BR 7.2.2 leaves to a CA's certificate.
type RootRevocation struct {
	Serial *big.Int
	At     time.Time
	Reason string
}

func rootReasonCodes() map[string]int {
	return map[string]int{"cACompromise": 2, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5}
}

// RootListLife is how long a root's revocation list may be relied on: the 12
// months of BR 4.9.7, less a day.
const RootListLife = 364 * 24 * time.Hour

// NextRootList signs the root's next revocation list (DER): what the last one
// has, and more if a CA is to be taken back; one that was taken back before keeps its
// time, and its reason if that is not cACompromise now. The last list must be the root's.
func NextRootList(root Pair, last []byte, more []RootRevocation, now time.Time) ([]byte, error) {
	before, err := x509.ParseRevocationList(last)
	if err != nil {
		return nil, fmt.Errorf("read the root's last revocation list: %w", err)
	}
	if err := before.CheckSignatureFrom(root.Cert); err != nil {
		return nil, fmt.Errorf("the last revocation list is not of this root: %w", err)
	}
	public, ok := root.Cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(root.Key.Public()) {
		return nil, errors.New("the key is not that of the root's certificate")
	}
	number := big.NewInt(1)
	if before.Number != nil { // a list of another program's may have none
		number.Add(number, before.Number)
	}
	next := &x509.RevocationList{
		Number: number, ThisUpdate: now.UTC().Truncate(time.Second),
		NextUpdate: now.Add(RootListLife).UTC().Truncate(time.Second), RevokedCertificateEntries: before.RevokedCertificateEntries,
	}
	for _, r := range more {
		code, ok := rootReasonCodes()[r.Reason]
		if !ok {
			return nil, fmt.Errorf("%q is no reason for a CA; use cACompromise, affiliationChanged, superseded or cessationOfOperation", r.Reason)
		}
		addRoot(next, r, code)
	}
	der, err := x509.CreateRevocationList(rand.Reader, next, root.Cert, root.Key)
	if err != nil {
		return nil, fmt.Errorf("sign the root's revocation list: %w", err)
	}
	return der, nil
}

func addRoot(list *x509.RevocationList, r RootRevocation, code int) {
	for i, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(r.Serial) != 0 {
			continue
		}
		if code == rootReasonCodes()["cACompromise"] {
			list.RevokedCertificateEntries[i].ReasonCode = code
		}
		return
	}
	list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
		SerialNumber: r.Serial, RevocationTime: r.At.UTC().Truncate(time.Second), ReasonCode: code,
	})
}

// KnownReason says whether a certificate may be revoked for it.
func KnownReason(reason string) bool {
	_, ok := reasonCodes()[reason]
	return ok
}

// RevocationList signs a list (DER). Its number must be greater than that of any before.
func (i *Issuer) RevocationList(revoked []Revocation, number int64, now time.Time) ([]byte, error) {
	codes := reasonCodes()
	list := &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: now.UTC().Truncate(time.Second),
		NextUpdate: now.Add(CRLLife).UTC().Truncate(time.Second), SignatureAlgorithm: i.algorithm,
	}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: r.Serial.Int(), RevocationTime: r.At.UTC().Truncate(time.Second), ReasonCode: codes[r.Reason],
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list: %w", err)
	}
	return der, nil
}
