package enroll

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func asking(user, mailbox string) Assignment {
	a := assignment(user, mailbox)
	a.Consent = ConsentAsk
	return a
}

// patient waits for an answer that never comes.
func patient(ctx context.Context, _ Question) (Verdict, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// TestPromptBlocksNobody: while one person thinks for an hour, another gets a
// certificate, and the command line can answer for the first.
func TestPromptBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.ask = patient
		w.person("uid:2")
		g, stop := w.run(w.policy(asking("uid:1", "a@example.com"), asking("uid:2", "b@example.com")))
		w.settle(10 * time.Minute)
		if got := only(t, g, Active); got.Assignment.User != "uid:2" {
			t.Errorf("%+v", got)
		}
		if got := only(t, g, Wanted); got.Problem == nil || got.Problem.Code != CodeConsentPending {
			t.Errorf("%+v", got.Problem)
		}
		if _, err := g.Decide("uid:2", "", Approve); !errors.Is(err, ErrNoneFits) {
			t.Errorf("uid:2 decided for uid:1: %v", err)
		}
		if ids, err := g.Decide("uid:1", "a@EXAMPLE.com", Approve); err != nil || len(ids) != 1 {
			t.Errorf("%v, %v", ids, err)
		}
		w.settle(time.Minute)
		w.check(1)
		if u.asked != 1 {
			t.Errorf("asked %d times", u.asked)
		}
		stop()
	})
}

// TestDecline: recorded, not asked again, taken back at will.
func TestDecline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.ask = func(context.Context, Question) (Verdict, error) { return Decline, nil }
		g, _ := w.engine()
		p := w.policy(asking("uid:1", "a@example.com"))
		stop := w.runEngine(g, p)
		w.settle(30 * day)
		e := only(t, g, Wanted)
		if u.asked != 1 || e.Problem == nil || e.Problem.Code != CodeConsentDeclined || e.Problem.Kind != Waiting {
			t.Errorf("asked %d times, %+v", u.asked, e.Problem)
		}
		stop()
		g, _ = w.engine() // a restart does not ask either
		stop = w.runEngine(g, p)
		g.Attach("uid:1")
		w.settle(day)
		if u.asked != 1 {
			t.Errorf("asked %d times", u.asked)
		}
		if _, err := g.Decide("", string(e.ID), Approve); err != nil {
			t.Error(err)
		}
		w.settle(time.Minute)
		w.check(1)
		want := []EventCode{EventWanted, EventDeclined, EventConsent, EventKey, EventSubmitted, EventIssued, EventInstalled, EventPrepared, EventProved}
		if codes := w.codes(e.ID); !slices.Equal(codes, want) {
			t.Errorf("told %v", codes)
		}
		stop()
	})
}

// TestLater: asked again after the pause, as often as policy allows; then the
// prompt offers no "later".
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		var left []int
		var at []time.Time
		u.ask = func(_ context.Context, q Question) (Verdict, error) {
			left, at = append(left, q.PostponementsLeft), append(at, time.Now())
			if q.PostponementsLeft == 0 {
				return Approve, nil
			}
			return Later, nil
		}
		a := asking("uid:1", "a@example.com")
		a.MaxPostponements = 2
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		if e := only(t, g, Wanted); e.Problem == nil || e.Problem.Code != CodeConsentPostponed {
			t.Errorf("%+v", e.Problem)
		}
		g.Attach("uid:1") // a login does not cut the pause short
		w.settle(2 * day)
		if !slices.Equal(left, []int{2, 1, 0}) {
			t.Errorf("postponements left: %v", left)
		}
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < g.Timing.PostponeFor {
				t.Errorf("asked again after %s", d)
			}
		}
		w.check(1)
		stop()
	})
}

func TestDecideLaterTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1").ask = patient
		a := asking("uid:1", "a@example.com")
		a.MaxPostponements = -1
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		if _, err := g.Decide("uid:1", "", Later); err == nil {
			t.Error("put off although policy says never")
		}
		if _, err := g.Decide("uid:1", "", "perhaps"); err == nil {
			t.Error("took a verdict that there is not")
		}
		stop()
	})
}

// TestAskedOnce: one question for one mailbox, whatever the stores; none for a
// renewal.
func TestAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.stores = append(u.stores, StoreFound{Name: "nss:work", Protection: "software", Algorithms: []string{"p-256"}})
		a := asking("uid:1", "a@example.com")
		a.Stores = []string{"nss:*"}
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		_, _ = g.Renew(Filter{}, ReasonAdministrator)
		w.settle(time.Minute)
		w.check(2)
		if u.asked != 1 {
			t.Errorf("asked %d times", u.asked)
		}
		if !slices.Equal(u.notices, []NoticeCode{NoticeEnrolled, NoticeEnrolled}) {
			t.Errorf("told %v", u.notices)
		}
		stop()
	})
}

// TestDeclinedForAll: a no to one mailbox is a no for each store, also one that
// is there only later; so is the yes that takes it back, named by one of them.
func TestDeclinedForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		work := StoreFound{Name: "nss:work", Protection: "software", Algorithms: []string{"p-256"}}
		u.stores = append(u.stores, work)
		u.ask = func(context.Context, Question) (Verdict, error) { return Decline, nil }
		a := asking("uid:1", "a@example.com")
		a.Stores = []string{"nss:*"}
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		work.Name = "nss:later"
		w.lock(func() { u.stores = append(slices.Clone(u.stores), work) })
		g.Attach("uid:1")
		w.settle(day)
		if n := len(w.record); n != 3 || u.asked != 1 {
			t.Errorf("%d enrollments, asked %d times", n, u.asked)
		}
		ids, err := g.Decide("uid:1", string(g.Enrollments()[1].ID), Approve)
		if err != nil || len(ids) != 3 {
			t.Errorf("approved %v, %v", ids, err)
		}
		w.settle(time.Minute)
		w.check(1)
		stop()
	})
}

// TestPolicyMoves: consent that policy no longer asks for is taken over by who
// was not asked yet, and what policy takes away is not pursued.
func TestPolicyMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1").ask = patient
		g, _ := w.engine()
		g.Timing = Timing{Look: 30 * time.Minute}
		stop := w.runEngine(g, w.policy(asking("uid:1", "a@example.com")))
		w.settle(time.Minute)
		if err := g.Apply(w.policy()); err != nil {
			t.Error(err)
		}
		w.settle(time.Minute)
		if e := only(t, g, Over); !e.Unwanted {
			t.Errorf("%+v", e)
		}
		if err := g.Apply(w.policy(asking("uid:1", "a@example.com"))); err != nil {
			t.Error(err)
		}
		w.settle(time.Minute)
		only(t, g, Wanted)
		if err := g.Apply(w.policy(assignment("uid:1", "a@example.com"))); err != nil {
			t.Error(err)
		}
		_, _ = g.Decide("uid:1", "", Later) // closes the prompt, whoever waits for it
		w.settle(2 * time.Hour)
		active := only(t, g, Active)
		_ = g.Apply(w.policy())
		w.settle(400 * day)
		if e := only(t, g, Active); !e.Unwanted || len(w.issued) != 1 {
			t.Errorf("renewed what nobody wants: %+v", e)
		}
		_ = g.Apply(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Hour)
		if e := only(t, g, Active); e.Replaces != active.ID || e.Reason != ReasonRenewalDue {
			t.Errorf("%s %s %s", e.ID, e.Replaces, e.Reason)
		}
		stop()
	})
}

// TestProfileRenamed: the certificate of the new profile takes the old one's place.
func TestProfileRenamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		a := assignment("uid:1", "a@example.com")
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		old := only(t, g, Active)
		a.Profile.Name = "employee-2"
		_ = g.Apply(w.policy(a))
		w.settle(time.Minute)
		if e := only(t, g, Active); e.Replaces != old.ID || e.Reason != ReasonProfileChanged {
			t.Errorf("%+v", e)
		}
		stop()
	})
}

func TestSameKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		a := assignment("uid:1", "a@example.com")
		a.Rotation = SameKey
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		first := only(t, g, Active)
		_, _ = g.Renew(Filter{}, ReasonAdministrator)
		w.settle(day)
		second := only(t, g, Active)
		if len(u.keys["nss:default"]) != 1 || second.KeyName() != first.ID || second.ID == first.ID {
			t.Errorf("%d keys, %s of %s", len(u.keys["nss:default"]), second.KeyName(), second.ID)
		}
		if err := g.Revoked(second.ID, "keyCompromise", time.Now()); err != nil {
			t.Error(err)
		}
		w.settle(time.Minute)
		if third := only(t, g, Active); third.Reason != ReasonRevoked || third.KeyName() != third.ID {
			t.Errorf("a revoked key serves again: %+v", third)
		}
		stop()
	})
}

// TestRefusal: a final no is over; the same is asked for again only after the
// pause, or when something changed, or when somebody asks.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		w.refused = 1 << 30
		a := asking("uid:1", "a@example.com")
		g, stop := w.run(w.policy(a))
		w.settle(6 * day)
		if e := only(t, g, Over); e.Problem == nil || e.Problem.Code != CodeRequestRefused || len(w.requests) != 1 {
			t.Errorf("%d requests, %+v", len(w.requests), e)
		}
		if !slices.Equal(u.notices, []NoticeCode{NoticeRefused}) {
			t.Errorf("told %v", u.notices)
		}
		w.settle(2 * day)
		if n := len(w.requests); n != 2 {
			t.Errorf("%d requests after the pause", n)
		}
		if _, err := g.Renew(Filter{User: "uid:1"}, ReasonPerson); err != nil {
			t.Error(err)
		}
		w.settle(time.Minute)
		if n := len(w.requests); n != 3 {
			t.Errorf("%d requests after somebody asked", n)
		}
		a.DisplayName = "Alice"
		_ = g.Apply(w.policy(a))
		w.settle(time.Minute)
		if n := len(w.requests); n != 4 {
			t.Errorf("%d requests after policy changed", n)
		}
		for range 20 {
			_, _ = g.Renew(Filter{User: "uid:1"}, ReasonPerson)
			w.settle(time.Minute)
		}
		if n := len(w.requests); n > 3+6 {
			t.Errorf("%d requests by somebody who asks and asks", n)
		}
		if u.asked != 1 {
			t.Errorf("asked %d times", u.asked)
		}
		stop()
	})
}

// TestRecordFails: while the record cannot be written nothing goes on, and no
// keys are made in a loop; present credentials stay (faults.md F3, F4).
func TestRecordFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		w.lock(func() { w.saveErr = errors.New("no space left on device") })
		if _, err := g.Renew(Filter{}, ReasonAdministrator); AsError(err).Code != CodeRecordFailed {
			t.Errorf("%v", err)
		}
		w.settle(day)
		if len(u.keys["nss:default"]) != 1 {
			t.Errorf("%d keys", len(u.keys["nss:default"]))
		}
		if e := only(t, g, Active); e.Problem == nil || e.Problem.Code != CodeRecordFailed {
			t.Errorf("%+v", e.Problem)
		}
		w.lock(func() { w.saveErr = nil })
		_, _ = g.Renew(Filter{}, ReasonAdministrator)
		w.settle(2 * day)
		w.check(2)
		if e := only(t, g, Active); e.Problem != nil {
			t.Errorf("%+v", e.Problem)
		}
		stop()
	})
}
