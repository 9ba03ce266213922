// Package audit says what of a call belongs into the audit log: everything that
// changes something, and no secret.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	controlv1 "smime-agent/proto/control/v1"
)

// Fields gives the facts of a call as pairs of key and value; ok is false for a
// call that changes nothing. answer is nil where the call failed.
func Fields(request, answer any) (fields []any, ok bool) {
	if fields, ok = adminFields(request, answer); ok {
		return fields, true
	}
	switch r := request.(type) {
	case *controlv1.JoinRequest:
		fields = []any{"hostname", bounded(r.GetFacts().GetHostname())}
		if a, joined := answer.(*controlv1.JoinResponse); joined {
			fields = append(fields, "device", a.GetDeviceId())
		}
	case *controlv1.RenewIdentityRequest:
	case *controlv1.SubmitRequest:
		fields = []any{
			"enrollment", bounded(r.GetEnrollmentId()), "user", bounded(r.GetUser()), "mailboxes", bounded(strings.Join(r.GetMailboxes(), " ")),
			"profile", bounded(r.GetProfile()), "store", bounded(r.GetStore()), "reason", bounded(r.GetReason()),
		}
		if a, submitted := answer.(*controlv1.SubmitResponse); submitted {
			fields = append(fields, "reference", a.GetReference(), "outcome", Outcome(a.GetOutcome()))
		}
	case *controlv1.ConfirmRequest:
		fields = []any{"reference", bounded(r.GetReference())}
		if a, confirmed := answer.(*controlv1.ConfirmResponse); confirmed {
			fields = append(fields, "outcome", Outcome(a.GetOutcome()))
		}
	case *controlv1.PublishRequest:
		sum := sha256.Sum256(r.GetValue())
		fields = []any{"enrollment", bounded(r.GetEnrollmentId()), "value_sha256", hex.EncodeToString(sum[:])}
	default:
		return nil, false
	}
	return fields, true
}

// adminFields is for what administrators do.
func adminFields(request, answer any) (fields []any, ok bool) {
	switch r := request.(type) {
	case *controlv1.CreateTokenRequest:
		fields = []any{"label", bounded(r.GetLabel()), "uses", r.GetMaxUses(), "needs_approval", r.GetNeedsApproval()}
		if a, created := answer.(*controlv1.CreateTokenResponse); created {
			fields = append(fields, "token_id", a.GetInfo().GetId())
		}
	case *controlv1.RevokeTokenRequest:
		fields = []any{"token_id", bounded(r.GetId())}
	case *controlv1.DecideDeviceRequest:
		fields = []any{"device", bounded(r.GetId()), "admit", r.GetAdmit(), "revoke_reason", bounded(r.GetRevokeReason())}
		if a, decided := answer.(*controlv1.DecideDeviceResponse); decided && r.GetRevokeReason() != "" {
			fields = append(fields, revocations(a.GetCertificates())...)
		}
	case *controlv1.DecideRequestRequest:
		fields = []any{"reference", bounded(r.GetReference()), "approve", r.GetApprove(), "reason", bounded(r.GetReason())}
	case *controlv1.RevokeRequest:
		fields = []any{"serial", bounded(r.GetSerial()), "reason", bounded(r.GetReason())}
	case *controlv1.ListLeaversRequest:
		if r.GetRevokeReason() == "" {
			return nil, false
		}
		fields = []any{"reason", bounded(r.GetRevokeReason()), "expected", r.GetExpected()}
		if a, revoked := answer.(*controlv1.ListLeaversResponse); revoked {
			entries := make([]*controlv1.LedgerEntry, 0, len(a.GetLeavers()))
			for _, l := range a.GetLeavers() {
				entries = append(entries, l.GetEntry())
			}
			fields = append(fields, revocations(entries)...)
		}
	case *controlv1.InstructRequest:
		fields = []any{"device", bounded(r.GetDeviceId()), "renew", bounded(r.GetOrder().GetRenew().GetEnrollmentId()), "prove", r.GetOrder().GetProve() != nil}
	case *controlv1.ApplyPolicyRequest:
		if r.GetDryRun() {
			return nil, false
		}
		if a, applied := answer.(*controlv1.ApplyPolicyResponse); applied {
			fields = []any{"revision", a.GetRevision(), "people", a.GetPeople()}
		}
	case *controlv1.RevokeAdministratorRequest:
		fields = []any{"administrator", bounded(r.GetName()), "serial", bounded(r.GetSerial()), "reason", bounded(r.GetReason())}
	case *controlv1.BackupRequest:
	default:
		return nil, false
	}
	return fields, true
}

// revocations counts what was revoked, and what is left to the CAs that issued it.
func revocations(entries []*controlv1.LedgerEntry) []any {
	left := 0
	for _, e := range entries {
		if e.GetAuthority() != "" {
			left++
		}
	}
	return []any{"revoked", len(entries) - left, "left_to_other_cas", left}
}

// Outcome names what became of a request; empty if nothing did yet.
func Outcome(r *controlv1.CollectResponse) string {
	switch r.GetOutcome().(type) {
	case *controlv1.CollectResponse_Issued:
		return "issued"
	case *controlv1.CollectResponse_Pending:
		return "pending"
	case *controlv1.CollectResponse_Challenge:
		return "challenge"
	case *controlv1.CollectResponse_Refused:
		return "refused"
	}
	return ""
}

// maxText bounds what a line repeats of a caller's words, in bytes.
const maxText = 512

func bounded(text string) string { return text[:min(len(text), maxText)] }
