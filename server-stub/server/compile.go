package server

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/policy"
)

// compile makes the part of the policy that concerns the users of one device.
func (s *Server) compile(p *policy.Policy, users []*controlv1.UserPresence) *controlv1.Policy {
	chain := s.issuer.Chain()
	out := &controlv1.Policy{
		Organization: p.Organization.Name, Contact: p.Contact, InstallAnchors: p.InstallAnchors,
		Anchors: [][]byte{chain[len(chain)-1]},
	}
	var profiles []string
	for _, user := range users {
		for _, grant := range p.Grants(user.GetAccount(), user.GetUpn()) {
			out.Assignments = append(out.Assignments, assignment(user.GetUser(), grant))
			if !slices.Contains(profiles, grant.Profile) {
				profiles = append(profiles, grant.Profile)
			}
		}
	}
	for _, name := range profiles {
		if profile, ok := ca.ProfileByName(name); ok {
			out.Profiles = append(out.Profiles, wireProfile(profile, p.Profiles[name]))
		}
	}
	return out
}

func wireProfile(profile ca.Profile, choice policy.ProfileChoice) *controlv1.Profile {
	return &controlv1.Profile{
		Name: profile.Name, Keys: acceptedKeys(profile, choice), Sign: profile.Sign, Encrypt: profile.Encrypt,
		MaxValidity: durationpb.New(ca.Life), Generation: choice.Generation, MinProtection: choice.MinProtection,
	}
}

func acceptedKeys(profile ca.Profile, choice policy.ProfileChoice) []string {
	if len(choice.Keys) > 0 {
		return choice.Keys
	}
	return profile.Keys
}

func assignment(user string, grant policy.Grant) *controlv1.Assignment {
	rule := grant.Rule
	out := &controlv1.Assignment{
		User: user, Mailboxes: grant.Person.Mailboxes, DisplayName: grant.Person.CommonName(),
		Profile: grant.Profile, MaxPostponements: rule.MaxPostponements, Stores: rule.Stores,
		Renewal: &controlv1.RenewalRule{Rotation: rule.Rotation}, Note: rule.Note,
	}
	switch rule.Consent {
	case policy.ConsentNotify:
		out.Consent = controlv1.Consent_CONSENT_NOTIFY
	case policy.ConsentSilent:
		out.Consent = controlv1.Consent_CONSENT_SILENT
	default:
		out.Consent = controlv1.Consent_CONSENT_ASK
	}
	if rule.RenewBefore > 0 {
		out.Renewal.Before = durationpb.New(rule.RenewBefore)
	}
	for _, m := range rule.Modules {
		out.Modules = append(out.Modules, &controlv1.PkcsModule{Path: m.Path, TokenLabel: m.TokenLabel})
	}
	return out
}

// revisionOf names a compiled policy by what is in it, so that only devices
// whose part changed hear of a change.
func revisionOf(p *controlv1.Policy) (string, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12]), nil
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
	revision, err := revisionOf(s.compile(force.policy, m.report.GetUsers()))
	if err != nil {
		return "", err
	}
	m.generation, m.revision = force.generation, revision
	return revision, nil
}
