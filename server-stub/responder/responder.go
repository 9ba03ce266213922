// Package responder answers by OCSP (RFC 6960, in the profile of RFC 5019) what
// became of a certificate. It signs by a key of its own, made when it is first
// needed and held in memory only, whose certificate the issuing CA signs for a
// few days (S/MIME BR 4.9.9), so that the CA's key signs nothing for strangers.
package responder

import (
	"bytes"
	"crypto"
	"crypto/sha1" //nolint:gosec // RFC 5019, 2.1.1: the hash that requests name their CA by
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"smime-agent/server-stub/ca"
)

// The times of answers and of the responder's own certificate.
const (
	// Life is how long an answer may be relied on: BR 4.9.10 wants 8 hours to 10 days.
	Life     = 24 * time.Hour
	certLife = 7 * 24 * time.Hour
	renewAt  = 3 * 24 * time.Hour
)

// MaxRequest is the largest request that is looked at, in octets.
const MaxRequest = 4 << 10

// Status is what the record has of a serial number.
type Status struct {
	// Issued is false for a number that was never given away: of that no "good" is
	// said (BR 4.9.10).
	Issued    bool
	RevokedAt time.Time
	Reason    string
}

// Responder answers requests. Set its fields before the first use; it may be
// used by many at once.
type Responder struct {
	Issuer *ca.Issuer
	Lookup func(serial ca.Serial) (Status, error)
	Now    func() time.Time

	once sync.Once
	slot chan struct{}
	mu   sync.Mutex
	cert *x509.Certificate
	key  crypto.Signer
}

// Answer gives the response (DER), which may say that there is none; keeps says
// that it is about a certificate, and good for a while. failed is for the log.
func (r *Responder) Answer(request []byte) (response []byte, keeps bool, failed error) {
	asked, err := ocsp.ParseRequest(request)
	if err != nil || len(request) > MaxRequest {
		return ocsp.MalformedRequestErrorResponse, false, nil
	}
	if !r.ours(asked) {
		return ocsp.UnauthorizedErrorResponse, false, nil
	}
	r.once.Do(func() { r.slot = make(chan struct{}, 2*runtime.NumCPU()) })
	select {
	case r.slot <- struct{}{}:
		defer func() { <-r.slot }()
	default:
		return ocsp.TryLaterErrorResponse, false, nil
	}
	response, err = r.sign(asked)
	if err != nil {
		return ocsp.InternalErrorErrorResponse, false, err
	}
	return response, true, nil
}

// ours says that the request is about the issuing CA, by the hashes of its name and key.
func (r *Responder) ours(asked *ocsp.Request) bool {
	issuer := r.Issuer.Certificate()
	key, err := keyBits(issuer)
	if err != nil || !asked.HashAlgorithm.Available() {
		return false
	}
	hash := func(data []byte) []byte {
		if asked.HashAlgorithm == crypto.SHA1 {
			sum := sha1.Sum(data) //nolint:gosec // see the import
			return sum[:]
		}
		h := asked.HashAlgorithm.New()
		h.Write(data)
		return h.Sum(nil)
	}
	return bytes.Equal(asked.IssuerNameHash, hash(issuer.RawSubject)) && bytes.Equal(asked.IssuerKeyHash, hash(key))
}

// keyBits is the key without its algorithm, as RFC 6960, 4.1.1, hashes it.
func keyBits(cert *x509.Certificate) ([]byte, error) {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil, err
	}
	return info.Key.RightAlign(), nil
}

func (r *Responder) sign(asked *ocsp.Request) ([]byte, error) {
	now := r.Now().UTC().Truncate(time.Second)
	answer := ocsp.Response{
		Status: ocsp.Unknown, SerialNumber: asked.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(Life), IssuerHash: asked.HashAlgorithm,
	}
	if raw := asked.SerialNumber.Bytes(); asked.SerialNumber.Sign() > 0 && len(raw) == ca.SerialSize {
		status, err := r.Lookup(ca.Serial(raw))
		if err != nil {
			return nil, fmt.Errorf("look up certificate: %w", err)
		}
		switch {
		case !status.Issued:
		case status.RevokedAt.IsZero():
			answer.Status = ocsp.Good
		default:
			answer.Status, answer.RevokedAt = ocsp.Revoked, status.RevokedAt.UTC().Truncate(time.Second)
			answer.RevocationReason = ca.ReasonCode(status.Reason)
		}
	}
	cert, key, err := r.identity(now)
	if err != nil {
		return nil, err
	}
	answer.Certificate = cert
	der, err := ocsp.CreateResponse(r.Issuer.Certificate(), cert, answer, key)
	if err != nil {
		return nil, fmt.Errorf("sign OCSP response: %w", err)
	}
	return der, nil
}

// identity gives certificate and key, new ones where the old will not last.
func (r *Responder) identity(now time.Time) (*x509.Certificate, crypto.Signer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cert != nil && now.Before(r.cert.NotAfter.Add(-renewAt)) && now.After(r.cert.NotBefore) {
		return r.cert, r.key, nil
	}
	key, err := ca.NewP256()
	if err != nil {
		return nil, nil, err
	}
	cert, err := r.Issuer.IssueResponder(key.Public(), now, certLife)
	if err != nil {
		return nil, nil, err
	}
	r.cert, r.key = cert, key
	return cert, key, nil
}
