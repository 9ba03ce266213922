package enroll

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// costlyPerson has a store where each new key makes the system ask.
func (w *world) costlyPerson(name string) *person {
	p := w.person(name)
	p.stores = []StoreFound{{Name: "keychain", Protection: "non-exportable", Algorithms: []string{"p-256"}, CostlyKeys: true}}
	return p
}

// TestRotationByStore: where policy leaves it open, a costly store keeps its key
// and any other gets a new one; what policy says, counts.
func TestRotationByStore(t *testing.T) {
	for _, c := range []struct {
		name     string
		rotation Rotation
		costly   bool
		keys     int
		notices  []NoticeCode
	}{
		{"open, costly", "", true, 1, []NoticeCode{NoticeEnrolled}},
		{"open, not costly", "", false, 2, []NoticeCode{NoticeEnrolled}},
		{"new key, costly", NewKey, true, 2, []NoticeCode{NoticeEnrolled, NoticeRenewed}},
		{"same key, not costly", SameKey, false, 1, []NoticeCode{NoticeEnrolled}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				u := w.person("uid:1")
				if c.costly {
					u = w.costlyPerson("uid:1")
				}
				a := asking("uid:1", "a@example.com")
				a.Rotation = c.rotation
				g, stop := w.run(w.policy(a))
				defer stop()
				w.settle(time.Minute)
				first := only(t, g, Active)
				_, _ = g.Renew(Filter{}, ReasonAdministrator)
				w.settle(day)
				second := only(t, g, Active)
				if second.ID == first.ID || len(u.keys[second.Store]) != c.keys || (second.KeyName() == first.ID) != (c.keys == 1) {
					t.Errorf("%d keys, %s of %s", len(u.keys[second.Store]), second.KeyName(), second.ID)
				}
				if !slices.Equal(u.notices, c.notices) {
					t.Errorf("told %v, want %v", u.notices, c.notices)
				}
			})
		})
	}
}

// TestRotationPlannedUnseen: a renewal that was planned before anybody saw the
// store keeps the key all the same.
func TestRotationPlannedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.costlyPerson("uid:1")
		a := assignment("uid:1", "a@example.com")
		_, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		stop()
		u.present = false
		g, stop := w.run(w.policy(a))
		defer stop()
		w.settle(time.Minute)
		first := only(t, g, Active)
		_, _ = g.Renew(Filter{}, ReasonAdministrator)
		w.settle(time.Minute)
		w.lock(func() { u.present = true })
		g.Attach("uid:1")
		w.settle(day)
		if second := only(t, g, Active); second.ID == first.ID || second.KeyName() != first.ID {
			t.Errorf("key %s of %s, want that of %s", second.KeyName(), second.ID, first.ID)
		}
	})
}

// TestProgramsAsk: the person is told beforehand, and only where it is so.
func TestProgramsAsk(t *testing.T) {
	for _, costly := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			u := w.person("uid:1")
			if costly {
				u = w.costlyPerson("uid:1")
			}
			var asked []bool
			u.ask = func(_ context.Context, q Question) (Verdict, error) {
				asked = append(asked, q.ProgramsAsk)
				return Approve, nil
			}
			_, stop := w.run(w.policy(asking("uid:1", "a@example.com")))
			defer stop()
			w.settle(time.Minute)
			if !slices.Equal(asked, []bool{costly}) {
				t.Errorf("costly %v: asked with %v", costly, asked)
			}
		})
	}
}
