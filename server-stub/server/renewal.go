package server

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/server-stub/store"
)

// defaultBefore is how long before the end agents renew if policy does not say.
const defaultBefore = 60 * 24 * time.Hour

// agentSpread is what agents begin earlier of their own; a suggestion that is
// later than their own moment they do not heed.
const agentSpread = 14 * 24 * time.Hour

// suggestedRenewal spreads what was issued together over the rule's spread,
// before the moment at which it would be renewed anyway. It is drawn from the
// certificate, so every answer says the same and nothing has to be kept; nil
// where policy names no spread.
func (s *Server) suggestedRenewal(r *store.Request) *timestamppb.Timestamp {
	force := s.current.Load()
	if force == nil {
		return nil
	}
	rule, ok := force.policy.RuleFor(r.Department)
	if !ok || rule.RenewSpread <= 0 {
		return nil
	}
	cert, err := parseLeaf(r.Certificate)
	if err != nil {
		return nil
	}
	before := rule.RenewBefore
	if before <= 0 {
		before = defaultBefore
	}
	hash := sha256.Sum256(r.Certificate)
	part := float64(binary.BigEndian.Uint64(hash[:8])) / math.MaxUint64
	at := cert.NotAfter.Add(-before - agentSpread - time.Duration(part*float64(rule.RenewSpread)))
	if earliest := cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3); at.Before(earliest) {
		at = earliest // a third of its life every certificate may have
	}
	return timestamppb.New(at.Truncate(time.Second))
}
