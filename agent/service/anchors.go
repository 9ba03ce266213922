package service

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

// trustAnchors makes the policy's anchors trusted on this machine, if policy says
// so and the system has such a thing; see [platform.TrustOnMachine]. A root that
// policy names no longer stays: mail that was signed under it is still to be read,
// and whether anybody else needs it the agent cannot know.
func (s *Service) trustAnchors(p enroll.Policy) {
	added, err := anchorsOf(p, platform.TrustOnMachine)
	for _, fingerprint := range added {
		s.log.Info("anchor trusted for e-mail", "sha256", fingerprint)
		s.event(eventAnchorTrusted, outcomeSuccess, "detail", fingerprint)
	}
	if err == nil {
		s.wrong.clear(status.AnchorsUntrusted)
		return
	}
	s.log.Warn("anchor not trusted", "error", err)
	s.wrong.raise(status.AnchorsUntrusted, "")
}

// anchorsOf hands each anchor to trust if policy wants that, and gives the
// fingerprints of those that are new. One that cannot be used stops no other.
func anchorsOf(p enroll.Policy, trust func(*x509.Certificate) (bool, error)) (added []string, err error) {
	if !p.InstallAnchors {
		return nil, nil
	}
	var failed []error
	for i, der := range p.Anchors {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			failed = append(failed, fmt.Errorf("anchor %d of %d: %w", i+1, len(p.Anchors), err))
			continue
		}
		isNew, err := trust(c)
		switch {
		case errors.Is(err, platform.ErrUnsupported): // the users' own stores have this to say
		case err != nil:
			failed = append(failed, err)
		case isNew:
			sum := sha256.Sum256(der)
			added = append(added, hex.EncodeToString(sum[:]))
		}
	}
	return added, errors.Join(failed...)
}
