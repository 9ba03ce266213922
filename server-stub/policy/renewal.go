package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"math"
	"time"
)

// defaultBefore is how long before the end agents renew if policy does not say.
const defaultBefore = 60 * 24 * time.Hour

// agentSpread is what agents begin earlier of their own; a suggestion that is
// later than their own moment they do not heed.
const agentSpread = 14 * 24 * time.Hour

// SuggestedRenewal spreads what was issued together over the rule's spread,
// before the moment at which it would be renewed anyway. It is drawn from the
// certificate, so every look gives the same and nothing has to be kept; zero
// where the rule names no spread.
func (r Rule) SuggestedRenewal(cert *x509.Certificate) time.Time {
	if r.RenewSpread <= 0 {
		return time.Time{}
	}
	before := r.RenewBefore
	if before <= 0 {
		before = defaultBefore
	}
	hash := sha256.Sum256(cert.Raw)
	part := float64(binary.BigEndian.Uint64(hash[:8])) / math.MaxUint64
	at := cert.NotAfter.Add(-before - agentSpread - time.Duration(part*float64(r.RenewSpread)))
	// A third of its life every certificate may have.
	if earliest := cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3); at.Before(earliest) {
		at = earliest
	}
	return at.Truncate(time.Second)
}
