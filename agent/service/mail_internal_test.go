package service

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/platform"
)

// TestChecksAreBounded: a place is kept once, a person's oldest place goes first,
// and one person takes nothing from another.
func TestChecksAreBounded(t *testing.T) {
	var all []enroll.MailCheck
	for i := range 100 {
		all = withCheck(all, enroll.MailCheck{User: "bob", Path: "/b", Messages: i})
		all = withCheck(all, enroll.MailCheck{User: "ann", Path: fmt.Sprint("/", i)})
	}
	if len(all) != placesKept+1 {
		t.Fatalf("%d kept: %+v", len(all), all)
	}
	if first, last := all[0], all[len(all)-1]; first.Path != "/92" || last.Path != "/99" {
		t.Errorf("kept from %+v to %+v", first, last)
	}
	for _, c := range all {
		if c.User == "bob" && c.Messages != 99 {
			t.Errorf("%+v", c)
		}
	}
	for i := range 1000 {
		all = withCheck(all, enroll.MailCheck{User: fmt.Sprint("u", i), Path: "/"})
	}
	if len(all) != checksKept {
		t.Errorf("%d kept", len(all))
	}
}

// TestUndoIsRuled: what policy rules is not the person's to take back, but an
// administrator's; what was undone can be wished for again.
func TestUndoIsRuled(t *testing.T) {
	e := using(t, "smime-1")
	e.Assignment.Mail = enroll.MailRule{Programs: []string{"*"}, Sign: enroll.MailAlways}
	s := writing(t, filepath.Join(t.TempDir(), "agent.db"), e)
	if err := s.engine.Apply(enroll.Policy{Assignments: []enroll.Assignment{e.Assignment}}); err != nil {
		t.Fatal(err)
	}
	undone := func() bool {
		now, _ := s.enrollment(e.ID)
		return now.Mail != nil && now.Mail.Undone
	}
	person, root := platform.Peer{User: "uid:1"}, platform.Peer{User: "uid:0", Admin: true}
	err := s.UndoMail(t.Context(), person, []enroll.ID{e.ID})
	if refused, ok := errors.AsType[*local.Error](err); !ok || refused.Reason != local.ReasonRuled || undone() {
		t.Errorf("%v, undone %v", err, undone())
	}
	if err := s.UndoMail(t.Context(), root, []enroll.ID{e.ID}); err != nil || !undone() {
		t.Errorf("%v, undone %v", err, undone())
	}
	if err := s.ApplyMail(t.Context(), person, []enroll.ID{e.ID}); err != nil || undone() {
		t.Errorf("%v, undone %v", err, undone())
	}
}
