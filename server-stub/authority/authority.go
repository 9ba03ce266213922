// Package authority is the border to certification authorities that issue in
// their own time: one interface in two phases, and EST (RFC 7030) behind it.
package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Authority issues certificates, at once or later.
type Authority interface {
	// Submit hands in an order. Submitting the same order again is no second order.
	Submit(ctx context.Context, o Order) (Answer, error)
	// Collect asks what became of an order that was pending.
	Collect(ctx context.Context, o Order) (Answer, error)
	// Revoke takes a certificate back, for an RFC 5280 reason. [ErrUnsupported] from
	// authorities that want it done at their own desk.
	Revoke(ctx context.Context, cert *x509.Certificate, reason string) error
	// Chain gives the authority's certificates, the issuing ones first, the anchor last.
	Chain(ctx context.Context) ([]*x509.Certificate, error)
}

// Order is what a certificate is wanted for. It was judged before: the CSR is
// signed by its own key, and policy gives the mailboxes.
type Order struct {
	// CSR is PKCS #10 (DER), made by the person's own key.
	CSR []byte
	// Key is the CSR's public key.
	Key crypto.PublicKey
	// Mailboxes are those that the certificate must name, and no others.
	Mailboxes []string
	// Renewal: the person has a certificate of the same names.
	Renewal bool
}

// Answer is a certificate, or the wait for one.
type Answer struct {
	// Chain has the certificate first, then its issuers without the anchor; empty while pending.
	Chain []*x509.Certificate
	// RetryAfter is how long to wait at least before asking again.
	RetryAfter time.Duration
}

var (
	// ErrUnsupported: the authority does not do this.
	ErrUnsupported = errors.New("the authority does not do this")
	// ErrRefused: the authority will not issue this; the same order would be refused again.
	ErrRefused = errors.New("the authority refuses the order")
	// ErrAnswer: what came is not what was ordered, or makes no sense.
	ErrAnswer = errors.New("the authority's answer cannot be used")
	// ErrUnavailable: the authority cannot be reached or cannot work now; try later.
	ErrUnavailable = errors.New("the authority does not work at the moment")
)

// MaxLife is the longest validity that is believed: 825 days (S/MIME BR 6.3.2).
const MaxLife = 825 * 24 * time.Hour

// Check holds a certificate against its order: nobody's answer is believed
// because of where it came from. Errors are [ErrAnswer].
func Check(o Order, cert *x509.Certificate, issuers []*x509.Certificate, anchors *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	key, ok := o.Key.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%w: the certificate is for another key", ErrAnswer)
	}
	if cert.IsCA {
		return nil, fmt.Errorf("%w: it is a CA's certificate", ErrAnswer)
	}
	if !sameMailboxes(cert.EmailAddresses, o.Mailboxes) {
		return nil, fmt.Errorf("%w: it names %v, ordered were %v", ErrAnswer, cert.EmailAddresses, o.Mailboxes)
	}
	// Both ends belong to it (RFC 5280, 4.1.2.5). Agents count so too: they would refuse what is recorded here.
	if life := cert.NotAfter.Sub(cert.NotBefore) + time.Second; life > MaxLife {
		return nil, fmt.Errorf("%w: it is valid for %v", ErrAnswer, life)
	}
	intermediates := x509.NewCertPool()
	for _, c := range issuers {
		intermediates.AddCert(c)
	}
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots: anchors, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return chains[0][:len(chains[0])-1], nil
}

func sameMailboxes(a, b []string) bool {
	fold := func(list []string) []string {
		out := make([]string, 0, len(list))
		for _, m := range list {
			out = append(out, strings.ToLower(m))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(fold(a), fold(b))
}
