package enroll

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAdoptionAwaitsPolicy: the record is gone, and the first policy knows of no
// user yet. What lies in the stores is in use again once the next one does, and
// nothing is asked for.
func TestAdoptionAwaitsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		w.plant(t, u, "smime-old", "a@example.com", time.Now().Add(-100*day))
		w.plant(t, u, "smime-best", "a@example.com", time.Now().Add(-50*day))
		a := assignment("uid:1", "a@example.com")
		a.Stores = []string{"nss:default"}
		g, _ := w.engine()
		stop := w.runEngine(g, w.policy())
		g.Attach("uid:1")
		w.settle(time.Minute)
		if err := g.Apply(w.policy(a)); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Hour)
		if e := only(t, g, Active); e.ID != "smime-best" || len(w.requests) != 0 {
			t.Errorf("%s is active after %d requests", e.ID, len(w.requests))
		}
		stop()
	})
}

// TestModulesOfALaterPolicy: the first policy knew of no user, so his token was
// not looked for. It is as soon as the next one names its module.
func TestModulesOfALaterPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.stores = []StoreFound{{Name: "pkcs11:card", Protection: "hardware", Algorithms: u.stores[0].Algorithms}}
		g, stop := w.run(w.policy())
		g.Attach("uid:1")
		w.settle(time.Second)
		a := assignment("uid:1", "a@example.com")
		a.Stores, a.Modules = []string{"pkcs11:card"}, []Module{{Path: "/usr/lib/card.so"}}
		if err := g.Apply(w.policy(a)); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Second)
		if e := only(t, g, Active); e.Store != "pkcs11:card" {
			t.Errorf("%+v", e)
		}
		stop()
	})
}

// TestNoProofWithoutPolicy: the policy was lost with a part of the record. Until
// it comes again nothing is judged by anchors that are not there.
func TestNoProofWithoutPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		_, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		stop()
		proofs := u.proofs
		g, _ := w.engine()
		g.Rebuilding = true
		if err := g.Load(); err != nil {
			t.Fatal(err)
		}
		stop = w.runLoaded(g)
		g.Attach("uid:1")
		w.settle(48 * time.Hour)
		if u.proofs != proofs {
			t.Errorf("%d proofs without a policy", u.proofs-proofs)
		}
		stop()
	})
}
