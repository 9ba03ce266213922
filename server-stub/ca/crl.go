package ca

import (
	"crypto/rand"
	"crypto/x509"
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

// KnownReason says whether a certificate may be revoked for it.
func KnownReason(reason string) bool {
	_, ok := reasonCodes()[reason]
	return ok
}

// RevocationList signs a list (DER). Its number is the time in milliseconds, so
// that it grows without a counter to keep.
func (i *Issuer) RevocationList(revoked []Revocation, now time.Time) ([]byte, error) {
	codes := reasonCodes()
	list := &x509.RevocationList{
		Number: big.NewInt(now.UnixMilli()), ThisUpdate: now.UTC().Truncate(time.Second),
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
