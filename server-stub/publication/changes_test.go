package publication

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
)

// TestChangesAreTold: whoever keeps the audit log hears of what others find otherwise
// than before, once, and of nothing else.
func TestChangesAreTold(t *testing.T) {
	b := newBureau(t)
	var told []string
	b.Changed = func(c Change) { told = append(told, fmt.Sprint(c.Mailbox, " ", c.State, " ", c.Serial)) }
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		told = nil
	}
	first := b.add("mailbox-dual", false, "a@example.com")
	b.pass()
	expect() // nothing was there, and nothing is
	first.Proof = &controlv1.ProofReport{Ok: true, Decrypts: true}
	b.pass()
	expect("a@example.com published 0")
	b.now = b.now.Add(25 * time.Hour) // it is looked at again
	b.pass()
	expect()
	second := b.add("mailbox-dual", true, "a@example.com")
	b.pass()
	expect("a@example.com published 1")
	first.RevokedAt, second.RevokedAt = timestamppb.New(b.now), timestamppb.New(b.now)
	b.pass()
	expect("a@example.com withdrawn ")
	b.pass()
	expect()
}
