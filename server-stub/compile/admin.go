package compile

import (
	"crypto/sha256"
	"encoding/hex"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
)

// MaxEffects bounds what an answer says of a change.
const MaxEffects = 10_000

// Effects gives what a change means as an answer has it; cut says that there is more.
func Effects(effects []policy.Effect) (out []*controlv1.PolicyEffect, cut bool) {
	cut = len(effects) > MaxEffects
	for _, e := range effects[:min(len(effects), MaxEffects)] {
		out = append(out, &controlv1.PolicyEffect{
			Kind: e.Kind, Account: e.Account, Mailboxes: e.Mailboxes, Profile: e.Profile, Detail: e.Detail,
		})
	}
	return out, cut
}

// Partners gives the files that came with a policy.
func Partners(req *controlv1.ApplyPolicyRequest) []policy.PartnerFile {
	var files []policy.PartnerFile
	for _, f := range req.GetPartners() {
		files = append(files, policy.PartnerFile{Name: f.GetName(), Content: f.GetContent()})
	}
	return files
}

// ContentRevision names a policy by its files.
func ContentRevision(rules, people []byte, partners policy.PartnerSet) string {
	h := sha256.New()
	h.Write(rules)
	h.Write([]byte{0})
	h.Write(people)
	if len(partners.Certificates) > 0 {
		h.Write([]byte(partners.Digest))
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
