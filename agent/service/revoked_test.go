package service

import (
	"slices"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	controlv1 "smime-agent/proto/control/v1"
)

// TestRevocationReachesThePerson revokes a certificate at central management: at
// the next contact the person is told, a new certificate comes by itself, and the
// old key stays for old mail.
func TestRevocationReachesThePerson(t *testing.T) {
	b := newBench(t, "notify")
	old := b.await("an active credential", inState(enroll.Active)).Credentials[0]
	// Of central management's own certificates the serial number is the reference.
	_, err := b.server.Admin.Revoke(t.Context(), &controlv1.RevokeRequest{Serial: old.Serial, Reason: "keyCompromise"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := b.await("another certificate", func(r status.Report) bool {
		return slices.ContainsFunc(r.Credentials, func(c status.Credential) bool {
			return c.State == enroll.Active && c.ID != old.ID && c.Proof.OK()
		})
	})
	for _, c := range r.Credentials {
		switch {
		case c.ID == old.ID && (c.State != enroll.Kept || !c.Revoked):
			t.Errorf("the revoked one is %+v", c)
		case c.ID != old.ID && c.Reason != enroll.ReasonRevoked:
			t.Errorf("the new one is there because of %q", c.Reason)
		}
	}
	var told []string
	for _, n := range b.prompter.Notices() {
		told = append(told, n.Text)
	}
	if !slices.Contains(told, string(enroll.NoticeRevoked)) {
		t.Errorf("the person was told %v", told)
	}
}
