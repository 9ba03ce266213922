package helper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"smime-agent/agent/enroll"
)

// DefaultWatch is how often the stores are looked at.
const DefaultWatch = 5 * time.Minute

// Watch looks at the stores of the last inventory every so often (0 is
// [DefaultWatch]) and calls changed when they hold something else than at the
// look before: a key or certificate came or went, a store appeared, was locked
// or unlocked. It makes no dialog appear and ends with ctx.
func (s *Session) Watch(ctx context.Context, every time.Duration, changed func()) {
	if every <= 0 {
		every = DefaultWatch
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, _ := s.fingerprint(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := s.fingerprint(ctx)
		if err != nil {
			continue // the next look tells
		}
		if last != "" && now != last {
			changed()
		}
		last = now
	}
}

// fingerprint is equal as long as the stores hold the same.
func (s *Session) fingerprint(ctx context.Context) (string, error) {
	s.mu.Lock()
	modules := s.modules
	s.mu.Unlock()
	v, err := s.inventory(ctx, modules)
	if err != nil {
		return "", err
	}
	failures := make([]enroll.Code, 0, len(v.Failures))
	for _, f := range v.Failures {
		failures = append(failures, f.Code)
	}
	text, err := json.Marshal([]any{v.Stores, v.Keys, failures})
	if err != nil {
		return "", fmt.Errorf("fingerprint stores: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
