package control

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// Bounds on what we send: texts of this machine may be anything. Those of a
// report are the contract's.
const (
	maxText        = 1024
	maxName        = 512
	maxUsers       = 64
	maxCredentials = 512
	maxConditions  = 128
	maxStores      = 32
	maxFields      = 32
)

// clean makes text of the system fit for a message, which takes UTF-8 only.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

func text(s string) string { return clean(s, maxText) }

func name(s string) string { return clean(s, maxName) }

func texts(ss []string, limit int) []string {
	out := make([]string, 0, min(len(ss), limit))
	for _, s := range ss[:min(len(ss), limit)] {
		out = append(out, text(s))
	}
	return out
}

func timeOut(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func (c *Client) facts() *controlv1.DeviceFacts {
	f := c.cfg.Facts
	return &controlv1.DeviceFacts{
		Hostname: name(f.Hostname), Os: name(f.OS), OsVersion: name(f.OSVersion),
		AgentVersion: name(f.AgentVersion), MachineIdHash: name(f.MachineIDHash),
	}
}

func (c *Client) syncRequest(in SyncInput) *controlv1.SyncRequest {
	req := &controlv1.SyncRequest{Facts: c.facts(), PolicyRevision: text(in.Revision), Rebuild: in.Rebuild}
	for _, u := range first(in.Users, maxUsers, func(a, b Presence) int { return ahead(a.Present, b.Present) }) {
		p := &controlv1.UserPresence{
			User: name(u.User), Account: name(u.Account), Upn: name(u.UPN), Present: u.Present, Locale: name(u.Locale),
		}
		for _, s := range u.Stores[:min(len(u.Stores), maxStores)] {
			p.Stores = append(p.Stores, &controlv1.StoreReport{
				Name: text(s.Name), Protection: text(s.Protection), Consumers: texts(s.Consumers, maxStores),
			})
		}
		req.Users = append(req.Users, p)
	}
	for _, e := range first(in.Enrollments, maxCredentials, byWeight) {
		req.Credentials = append(req.Credentials, credentialOut(e))
	}
	for _, k := range in.Conditions[:min(len(in.Conditions), maxConditions)] {
		req.Conditions = append(req.Conditions, &controlv1.ConditionReport{
			Code: text(string(k.Code)), Severity: text(k.Severity), Text: text(k.Text),
			Since: timeOut(k.Since), EnrollmentId: text(string(k.EnrollmentID)),
		})
	}
	return req
}

// first gives what fits into a report. Where not all do, those that matter most
// go ahead.
func first[T any](all []T, most int, order func(a, b T) int) []T {
	if len(all) <= most {
		return all
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, order)
	return all[:most]
}

// byWeight puts what is in use or on its way before what is kept for old mail or
// over, and then the newest first: IDs sort by age.
func byWeight(a, b enroll.Enrollment) int {
	live := func(e enroll.Enrollment) bool { return e.State != enroll.Kept && e.State != enroll.Over }
	return cmp.Or(ahead(live(a), live(b)), cmp.Compare(b.ID, a.ID))
}

func ahead(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func credentialOut(e enroll.Enrollment) *controlv1.CredentialReport {
	r := &controlv1.CredentialReport{
		EnrollmentId: text(string(e.ID)), User: text(e.Assignment.User), Mailbox: text(e.Mailbox()),
		Profile: text(e.Assignment.Profile.Name), Store: text(e.Store), State: text(string(e.State)),
		Reason: text(string(e.Reason)), Serial: enroll.SerialOf(e), NotAfter: timeOut(e.NotAfter),
		RenewAt: timeOut(e.RenewAt), Protection: text(e.Protection), Consent: consentOut(e.Consent),
	}
	if p := e.Proof; p != nil {
		r.Proof = &controlv1.ProofReport{
			At: timeOut(p.At), Ok: p.OK(), Signs: p.Signs, Decrypts: p.Decrypts, ChainOk: p.ChainOK,
			Algorithms: texts(p.Algorithms, maxStores), Failure: text(p.Failure),
		}
	}
	if m := e.Mail; m != nil {
		for _, a := range m.Accounts[:min(len(m.Accounts), maxStores)] {
			r.Mail = append(r.Mail, &controlv1.MailAccountReport{
				Program: text(a.Program), Account: text(a.ID), State: text(string(a.State)), ByHand: texts(a.ByHand, maxStores),
			})
		}
	}
	if p := e.Problem; p != nil {
		// The hint, and not the detail, which may show paths and names.
		r.Problem = &controlv1.ConditionReport{
			Code: text(string(p.Code)), Severity: severity(p.Kind), Text: text(p.Hint),
			Since: timeOut(p.Since), EnrollmentId: text(string(e.ID)),
		}
	}
	return r
}

func severity(k enroll.Kind) string {
	if k == enroll.Final {
		return "error"
	}
	return "warning"
}

func consentOut(c enroll.Consent) string {
	switch {
	case c.NotNeeded:
		return "not-needed"
	case c.Verdict == enroll.Approve:
		return "approved"
	case c.Verdict == enroll.Decline:
		return "declined"
	case c.Verdict == enroll.Later:
		return "later"
	}
	return ""
}

func submissionOut(s enroll.Submission) *controlv1.SubmitRequest {
	return &controlv1.SubmitRequest{
		EnrollmentId: text(string(s.ID)), Csr: s.CSR, Profile: text(s.Profile), User: text(s.User),
		Mailboxes: texts(s.Mailboxes, maxMailboxes), Store: text(s.Store), Protection: text(s.Protection),
		Replaces: text(string(s.Replaces)), Reason: text(string(s.Reason)),
	}
}

func eventOut(e AuditEvent) *controlv1.Event {
	out := &controlv1.Event{
		Id: text(e.ID), At: timeOut(e.Event.At), Code: text(string(e.Event.Code)),
		User: text(e.Event.Enrollment.Assignment.User), EnrollmentId: text(string(e.Event.Enrollment.ID)),
		Mailbox: text(e.Event.Enrollment.Mailbox()), Outcome: text(e.Event.Outcome),
	}
	for k, v := range e.Event.Fields {
		if len(out.Fields) == maxFields {
			break
		}
		if out.Fields == nil {
			out.Fields = map[string]string{}
		}
		out.Fields[text(k)] = text(v)
	}
	return out
}
