package enroll

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// run starts an engine with a policy; stop ends it and waits.
func (w *world) run(p Policy) (*Engine, func()) {
	w.t.Helper()
	g, _ := w.engine()
	return g, w.runEngine(g, p)
}

func (w *world) runEngine(g *Engine, p Policy) func() {
	w.t.Helper()
	if err := g.Load(); err != nil {
		w.t.Fatal(err)
	}
	_ = g.Apply(p) // after a crash the record cannot be written, which is the point
	return w.runLoaded(g)
}

func (w *world) runLoaded(g *Engine) func() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		_ = g.Run(ctx)
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

func only(t *testing.T, g *Engine, s State) Enrollment {
	t.Helper()
	var found []Enrollment
	for _, e := range g.Enrollments() {
		if e.State == s {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d enrollments are %s, of %+v", len(found), s, g.Enrollments())
	}
	return found[0]
}

func TestWishToProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		w.person("uid:2")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com"), assignment("uid:2", "b@example.com")))
		w.settle(time.Minute)
		synctest.Wait()
		w.check(1)
		for _, e := range g.Enrollments() {
			if e.Reason != ReasonFirst || !e.Proof.OK() || e.RenewAt.IsZero() || e.Problem != nil {
				t.Errorf("%+v", e)
			}
		}
		stop()
	})
}

// TestCrashAtRandom kills the agent again and again, wherever it is, through a
// first enrollment and two renewals.
func TestCrashAtRandom(t *testing.T) {
	seed := rand.Uint64()
	for run := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, run))
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.person("uid:1")
			a := asking("uid:1", "a@example.com")
			for range 5 { // lives
				w.lock(func() { w.crashAt = w.points + 1 + r.IntN(40) })
				_, stop := w.run(w.policy(a))
				w.settle(3 * time.Hour)
				stop()
			}
			w.crashAt = 0
			for _, a.Profile.Generation = range []string{"", "1", "2"} {
				_, stop := w.run(w.policy(a))
				w.settle(6 * time.Hour)
				stop()
			}
			w.check(3)
			if t.Failed() {
				t.Fatalf("seed %d, run %d:\n%s", seed, run, w.summary())
			}
		})
	}
}

// TestCrashEverywhere breaks a first enrollment and a renewal before and after
// every outside effect, one after the other; a new life of the agent over the
// same record and stores must finish without loss, orphan or double.
func TestCrashEverywhere(t *testing.T) {
	for at := 1; ; at++ {
		crashed := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.crashAt = at
			w.person("uid:1")
			a := assignment("uid:1", "a@example.com")
			a.Consent = ConsentAsk
			p := w.policy(a)
			for life := range 2 {
				if life == 1 {
					w.crashAt = 0
				}
				g, stop := w.run(p)
				w.settle(3 * time.Hour)
				if !g.Ledger.(*process).dead {
					_, _ = g.Renew(Filter{}, ReasonAdministrator)
				} else {
					crashed = true
				}
				w.settle(3 * time.Hour)
				crashed = crashed || g.Ledger.(*process).dead
				stop()
				if !crashed {
					break
				}
				if life == 1 && len(w.issued) == 3 { // the crash came after the renewal was done
					w.check(3)
					return
				}
			}
			w.check(2)
			if t.Failed() {
				t.Fatalf("crash point %d:\n%s", at, w.summary())
			}
		})
		if !crashed {
			t.Logf("%d crash points", at-1)
			if at < 30 {
				t.Errorf("only %d crash points: the test looks at too little", at-1)
			}
			return
		}
	}
}
