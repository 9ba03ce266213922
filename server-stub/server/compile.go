package server

import (
	"maps"
	"slices"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/compile"
	"smime-agent/server-stub/policy"
)

// compile makes the part of the policy that concerns the users of one device.
func (s *Server) compile(p *policy.Policy, users []*controlv1.UserPresence) *controlv1.Policy {
	chain := s.issuer.Chain()
	anchors := [][]byte{chain[len(chain)-1]}
	for _, name := range slices.Sorted(maps.Keys(s.externals)) {
		anchors = append(anchors, s.externals[name].Anchors...)
	}
	return compile.Policy(p, users, anchors)
}

// revision gives the revision of the member's policy, compiled anew only when
// policy or users changed; the caller holds the member's mutex. The policy
// itself is not kept: a million devices would fill the memory with them.
func (s *Server) revision(m *member) (string, error) {
	force := s.current.Load()
	if force == nil {
		return "", nil
	}
	if m.generation == force.generation && m.revision != "" {
		return m.revision, nil
	}
	revision, err := compile.Revision(s.compile(force.policy, m.report.GetUsers()))
	if err != nil {
		return "", err
	}
	m.generation, m.revision = force.generation, revision
	return revision, nil
}
