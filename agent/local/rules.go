package local

import (
	"slices"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

// scope is how far a caller's arm reaches in a method.
type scope string

const (
	// own: what belongs to the caller; an administrator reaches all.
	own scope = "own"
	// machine: nothing of any user, so that everybody may.
	machine scope = "machine"
	// self: only himself, whoever he is.
	self scope = "self"
)

// rules says who may call what. A method that is not here is refused.
var rules = map[string]scope{
	localv1.AgentService_Status_FullMethodName:       own,
	localv1.AgentService_Watch_FullMethodName:        own,
	localv1.AgentService_Decide_FullMethodName:       own,
	localv1.AgentService_Renew_FullMethodName:        own,
	localv1.AgentService_Confirm_FullMethodName:      own,
	localv1.AgentService_Prove_FullMethodName:        own,
	localv1.AgentService_Sync_FullMethodName:         machine,
	localv1.AgentService_Diagnose_FullMethodName:     machine,
	localv1.AgentService_Settings_FullMethodName:     machine,
	localv1.AgentService_ReportMail_FullMethodName:   self,
	localv1.AgentService_MailPrograms_FullMethodName: own,
	localv1.AgentService_Attach_FullMethodName:       self,
}

// view is the part of the report that the caller may see.
func view(p platform.Peer, r status.Report) status.Report {
	if p.Admin {
		return r
	}
	return r.For(p.User)
}

// All as a target means: everything that the caller may move.
const All = "*"

// resolve finds the enrollments that a target means, among those that the
// caller may move and that fit. The target is an ID, a mailbox, [All], or empty
// for all of the caller himself. What belongs to others is not found.
func resolve(p platform.Peer, r status.Report, target string, fits func(status.Credential) bool) ([]enroll.ID, error) {
	named := target != "" && target != All
	found := false
	var ids []enroll.ID
	for _, c := range view(p, r).Credentials {
		switch {
		case named && string(c.ID) != target && !slices.Contains(c.Mailboxes, target) && c.Mailbox != target:
			continue
		case target == "" && c.User != p.User:
			continue
		}
		found = true
		if fits(c) {
			ids = append(ids, c.ID)
		}
	}
	switch {
	case len(ids) > 0:
		return ids, nil
	case !named:
		return nil, &Error{Reason: ReasonNothing}
	case found:
		return nil, &Error{Reason: ReasonWrongState}
	default:
		return nil, &Error{Reason: ReasonNotFound}
	}
}

// decidable waits for the person.
func decidable(c status.Credential) bool { return c.State == enroll.Wanted }

// challenged: a code was mailed and is waited for.
func challenged(c status.Credential) bool {
	return c.State == enroll.Submitted && c.Problem != nil && c.Problem.Code == enroll.CodeChallengePending
}

// renewable is in use, or ended without a certificate; nothing carries it on yet.
func renewable(c status.Credential) bool {
	return (c.State == enroll.Active || c.State == enroll.Over) && c.ReplacedBy == "" && !c.Unwanted
}

// inUse: its mail programs are looked after.
func inUse(c status.Credential) bool { return c.State == enroll.Active }

// provable has a certificate beside its key.
func provable(c status.Credential) bool {
	return c.State == enroll.Installed || c.State == enroll.Prepared || c.State == enroll.Active || c.State == enroll.Kept
}
