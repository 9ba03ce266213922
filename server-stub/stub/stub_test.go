package stub_test

import (
	"testing"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/stub"
)

func TestFirstCertificate(t *testing.T) {
	s := start(t, stub.Options{})
	d := join(t, s, token(t, s, &controlv1.CreateTokenRequest{}))
	resp := d.syncAs(t, alice())
	if len(resp.GetPolicy().GetAssignments()) != 1 || resp.GetPolicyRevision() == "" || !resp.GetPolicyChanged() {
		t.Fatalf("no assignment for alice: %v", resp)
	}
	again, err := d.Sync(t.Context(), &controlv1.SyncRequest{
		Users: []*controlv1.UserPresence{alice()}, PolicyRevision: resp.GetPolicyRevision(),
	})
	if err != nil || again.GetPolicyChanged() || again.GetPolicy() != nil {
		t.Fatalf("same revision gives the policy again: %v, %v", again, err)
	}
	key := p256(t)
	sent := submission(enrollmentID(1), csr(t, key))
	got, err := d.Submit(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	leaf := issued(t, got.GetOutcome())
	if !key.PublicKey.Equal(leaf.PublicKey) || len(leaf.EmailAddresses) != 1 || leaf.EmailAddresses[0] != "alice@example.com" {
		t.Errorf("certificate is for another key or mailbox: %v", leaf.EmailAddresses)
	}
	repeat, err := d.Submit(t.Context(), sent)
	if err != nil || repeat.GetReference() != got.GetReference() || !issued(t, repeat.GetOutcome()).Equal(leaf) {
		t.Errorf("a repeated call gives %v, %v, want the same certificate", repeat, err)
	}
	collected, err := d.Collect(t.Context(), &controlv1.CollectRequest{Reference: got.GetReference()})
	if err != nil || !issued(t, collected).Equal(leaf) {
		t.Errorf("collect gives %v, %v", collected, err)
	}
}
