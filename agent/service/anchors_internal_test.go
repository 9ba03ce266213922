package service

import (
	"crypto/x509"
	"errors"
	"slices"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestAnchorsAreTrustedOnlyIfPolicySaysSo: and one that cannot be used keeps no
// other from it.
func TestAnchorsAreTrustedOnlyIfPolicySaysSo(t *testing.T) {
	first, second, there := platformtest.NewAuthority(t).Root, platformtest.NewAuthority(t).Root, platformtest.NewAuthority(t).Root
	refused := platformtest.NewAuthority(t).Root
	errRefused := errors.New("planted")
	var asked []*x509.Certificate
	trust := func(c *x509.Certificate) (bool, error) {
		asked = append(asked, c)
		if c.Equal(refused) {
			return false, errRefused
		}
		return !c.Equal(there), nil
	}
	p := enroll.Policy{Anchors: [][]byte{first.Raw, {1, 2, 3}, refused.Raw, there.Raw, second.Raw}}
	if added, err := anchorsOf(p, trust); len(added) > 0 || err != nil || len(asked) > 0 {
		t.Fatalf("policy says nothing of it: %v, %v, asked %d times", added, err, len(asked))
	}
	p.InstallAnchors = true
	added, err := anchorsOf(p, trust)
	if len(added) != 2 || slices.Contains(added, "") || added[0] == added[1] {
		t.Errorf("trusted anew: %q", added)
	}
	if !errors.Is(err, errRefused) || len(asked) != 4 {
		t.Errorf("%v, asked %d times", err, len(asked))
	}
	unsupported := func(*x509.Certificate) (bool, error) { return false, platform.ErrUnsupported }
	p.Anchors = [][]byte{first.Raw}
	if added, err := anchorsOf(p, unsupported); len(added) > 0 || err != nil {
		t.Errorf("where each user's store has a trust of its own: %v, %v", added, err)
	}
}
