// Package compile turns the policy of the company into what one device is told.
package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/policy"
)

// Policy makes the part of the policy that concerns the users of one device, with
// the trust anchors (DER) of its certificates.
func Policy(p *policy.Policy, users []*controlv1.UserPresence, anchors [][]byte) *controlv1.Policy {
	out := &controlv1.Policy{
		Organization: p.Organization.Name, Contact: p.Contact, InstallAnchors: p.InstallAnchors,
		Anchors: anchors,
	}
	if p.Partners.Digest != policy.NoPartners {
		out.PartnersDigest = p.Partners.Digest
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
	life := ca.Life
	if choice.CA != "" { // which issues for as long as it likes to
		life = authority.MaxLife
	}
	return &controlv1.Profile{
		Name: profile.Name, Keys: AcceptedKeys(profile, choice), Sign: profile.Sign, Encrypt: profile.Encrypt,
		MaxValidity: durationpb.New(life), Generation: choice.Generation, MinProtection: choice.MinProtection,
	}
}

// AcceptedKeys are the kinds of key that the profile takes under this policy.
func AcceptedKeys(profile ca.Profile, choice policy.ProfileChoice) []string {
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
	if m := rule.Mail; len(m.Programs) > 0 {
		out.Mail = &controlv1.MailRule{
			Programs: m.Programs, Sign: m.Sign, Encrypt: m.Encrypt, ClearSign: m.ClearSign, Hash: m.Hash, Cipher: m.Cipher,
		}
	}
	for _, m := range rule.Modules {
		out.Modules = append(out.Modules, &controlv1.PkcsModule{Path: m.Path, TokenLabel: m.TokenLabel})
	}
	return out
}

// Revision names a compiled policy by what is in it, so that only devices
// whose part changed hear of a change.
func Revision(p *controlv1.Policy) (string, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12]), nil
}
