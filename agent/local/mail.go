package local

import (
	"context"

	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

// Bounds of a report on old mail: keys, and messages.
const (
	mailKeysLimit = 200
	messagesLimit = 1 << 30
)

// ReportMail hands in what a look through one's own old mail found. User and At
// of the check are for the service to set.
func (c *Client) ReportMail(ctx context.Context, m enroll.MailCheck) error {
	r := &localv1.ReportMailRequest{
		Path: m.Path, Messages: counted(m.Messages), Encrypted: counted(m.Encrypted), Opened: counted(m.Opened), Obscure: counted(m.Obscure),
	}
	for _, k := range m.Keys[:min(len(m.Keys), mailKeysLimit)] {
		r.Keys = append(r.Keys, &localv1.MailKey{
			EnrollmentId: string(k.Enrollment), Issuer: k.Issuer, Serial: k.Serial, KeyId: k.KeyID,
			Presence: string(k.Presence), Messages: counted(k.Messages),
		})
	}
	_, err := c.api.ReportMail(ctx, r)
	return fromStatus(err)
}

func counted(n int) uint32 { return uint32(min(max(n, 0), messagesLimit)) } //nolint:gosec // bounded

// ReportMail takes a report for the caller himself.
func (s *service) ReportMail(ctx context.Context, r *localv1.ReportMailRequest) (*localv1.ReportMailResponse, error) {
	p, ok := caller(ctx)
	if !ok {
		return nil, &Error{Reason: ReasonDenied}
	}
	if r.GetPath() == "" || len(r.GetKeys()) > mailKeysLimit {
		return nil, &Error{Reason: ReasonInvalid}
	}
	c := enroll.MailCheck{
		User: p.User, Path: plain(r.GetPath()), Messages: bounded(r.GetMessages()), Encrypted: bounded(r.GetEncrypted()),
		Opened: bounded(r.GetOpened()), Obscure: bounded(r.GetObscure()),
	}
	for _, k := range r.GetKeys() {
		c.Keys = append(c.Keys, enroll.MailKey{
			Enrollment: enroll.ID(plain(k.GetEnrollmentId())), Issuer: plain(k.GetIssuer()), Serial: plain(k.GetSerial()), KeyID: plain(k.GetKeyId()),
			Presence: presence(k.GetPresence()), Messages: bounded(k.GetMessages()),
		})
	}
	return &localv1.ReportMailResponse{}, s.agent.MailChecked(ctx, c)
}

// The wishes for mail programs.
const (
	wishUndo  = "undo"
	wishApply = "apply"
)

// UndoMail has put back what the mail programs had before the agent came; the
// target is as in [Client.Decide].
func (c *Client) UndoMail(ctx context.Context, target string) ([]enroll.ID, error) {
	return c.mailPrograms(ctx, target, wishUndo)
}

// ApplyMail has the mail programs made ready again.
func (c *Client) ApplyMail(ctx context.Context, target string) ([]enroll.ID, error) {
	return c.mailPrograms(ctx, target, wishApply)
}

func (c *Client) mailPrograms(ctx context.Context, target, wish string) ([]enroll.ID, error) {
	r, err := c.api.MailPrograms(ctx, &localv1.MailProgramsRequest{Target: target, Wish: wish})
	return ids(r.GetEnrollments()), fromStatus(err)
}

// MailPrograms puts a wish for mail programs on record.
func (s *service) MailPrograms(ctx context.Context, r *localv1.MailProgramsRequest) (*localv1.MailProgramsResponse, error) {
	do := s.agent.UndoMail
	switch r.GetWish() {
	case wishUndo:
	case wishApply:
		do = s.agent.ApplyMail
	default:
		return nil, &Error{Reason: ReasonInvalid}
	}
	names, err := s.move(ctx, r.GetTarget(), inUse, do)
	return &localv1.MailProgramsResponse{Enrollments: names}, err
}

func bounded(n uint32) int { return int(min(n, messagesLimit)) }

// presence takes a word that is not known for "unknown".
func presence(word string) enroll.KeyPresence {
	switch p := enroll.KeyPresence(word); p {
	case enroll.KeyHere, enroll.KeyGone, enroll.KeyUnseen, enroll.KeyUnknown:
		return p
	}
	return enroll.KeyUnknown
}
