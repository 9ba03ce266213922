package enroll

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestOldRecordIsPrepared: a record of an agent that knew no mail programs goes
// on where it was, in every state.
func TestOldRecordIsPrepared(t *testing.T) {
	for _, s := range []State{Installed, Active} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			u := w.person("uid:1")
			_, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
			w.settle(time.Minute)
			stop()
			w.lock(func() {
				for id, e := range w.record {
					e.State, e.Mail, e.NextMail = s, nil, time.Time{}
					w.record[id] = e
				}
				u.mail = nil
			})
			g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
			w.settle(time.Minute)
			if e := only(t, g, Active); !e.Mail.found() {
				t.Errorf("from %s: %+v", s, e)
			}
			w.check(1)
			stop()
		})
	}
}

// TestMailProgramHoldsNothingUp: whatever a program does, the credential is
// proved and used, what is wrong stands beside it, and it is tried again.
func TestMailProgramHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.mailErr = &Error{Kind: Transient, Code: CodeInternal, Hint: "No.", Err: errors.New("broken")}
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		defer stop()
		w.settle(time.Minute)
		e := only(t, g, Active)
		if p := e.Mail.Problem; e.Problem != nil || p == nil || p.Code != CodeMailFailed || p.Hint != "No." {
			t.Fatalf("%+v", e.Mail)
		}
		since := e.Mail.Problem.Since
		w.settle(2 * proofRetry)
		if e := only(t, g, Active); e.Mail.Attempts < 2 || !e.Mail.Problem.Since.Equal(since) {
			t.Errorf("after two hours: %+v", e.Mail)
		}
		w.lock(func() { u.mailErr = nil; u.mailSays.State = MailBusy })
		w.settle(day)
		if a := only(t, g, Active).Mail.Accounts; len(a) != 1 || a[0].State != MailBusy || a[0].Since.IsZero() {
			t.Errorf("while it is open: %+v", a)
		}
		w.lock(func() { u.mailSays.State = MailReady })
		g.Attach("uid:1") // the session saw it close
		w.settle(time.Minute)
		w.check(1)
	})
}

// TestMailRenewal: the new certificate comes with the old ones and the accounts
// that had them, and the programs use it before it takes the old one's place.
func TestMailRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		defer stop()
		w.settle(time.Minute)
		old := only(t, g, Active)
		if _, err := g.Renew(Filter{}, ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		e := only(t, g, Active)
		last := u.prepares[len(u.prepares)-1]
		if len(last.Earlier) != 1 || !slices.Equal(last.Earlier[0], old.Chain[0]) || !slices.Equal(last.Prepared, []string{"memory 1"}) {
			t.Errorf("prepared with %+v", last)
		}
		if codes := w.codes(e.ID); slices.Index(codes, EventPrepared) > slices.Index(codes, EventProved) || !slices.Contains(codes, EventPrepared) {
			t.Errorf("told %v", codes)
		}
		w.check(2)
	})
}

// TestMailDrift: the daily look sets again what went astray, and another policy
// is followed at once.
func TestMailDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		a := assignment("uid:1", "a@example.com")
		g, stop := w.run(w.policy(a))
		defer stop()
		w.settle(time.Minute)
		w.lock(func() { u.mail = []byte("another") })
		w.settle(2 * day)
		w.check(1)
		looks := len(u.prepares)
		a.Mail.Sign = MailNever
		if err := g.Apply(w.policy(a)); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		if got := u.prepares[len(u.prepares)-1].Rule.Sign; len(u.prepares) != looks+1 || got != MailNever {
			t.Errorf("%d looks after the change, the last for %q", len(u.prepares)-looks, got)
		}
		a.Mail = MailRule{}
		if err := g.Apply(w.policy(a)); err != nil {
			t.Fatal(err)
		}
		w.settle(3 * day)
		if e := only(t, g, Active); e.Mail != nil || len(u.prepares) != looks+1 {
			t.Errorf("left alone, and yet %+v after %d looks", e.Mail, len(u.prepares)-looks)
		}
	})
}
