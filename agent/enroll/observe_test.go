package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// settle lets the engine work for a while; what the test read before, it has
// read before the engine goes on.
func (w *world) settle(d time.Duration) {
	w.lock(func() {})
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) lock(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// plant puts a key into a user's store, with a certificate if from is not zero.
func (w *world) plant(t *testing.T, u *person, id ID, mailbox string, from time.Time) *storedKey {
	k := &storedKey{private: newKey(t)}
	if !from.IsZero() {
		leaf := w.ca.issue(t, newCSR(t, k.private), []string{mailbox}, from, w.life, nil)
		k.chain, k.ever = [][]byte{leaf.Raw, w.ca.issuing.Raw}, true
	}
	if u.keys["nss:default"] == nil {
		u.keys["nss:default"] = map[ID]*storedKey{}
	}
	u.keys["nss:default"][id] = k
	return k
}

// TestKeyRemoved: one new enrollment for a key that vanished, none while its
// store cannot be read, and no loop (faults.md F13).
func TestKeyRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		first := only(t, g, Active)
		stores := u.stores
		w.lock(func() {
			u.keys["nss:default"] = nil
			u.stores = nil
			u.failures = []*Error{{Kind: Waiting, Code: CodeStoreLocked}}
		})
		g.Attach("uid:1")
		w.settle(day)
		if n := len(g.Enrollments()); n != 1 {
			t.Fatalf("%d enrollments while the store is locked", n)
		}
		w.lock(func() { u.stores, u.failures = stores, nil })
		g.Attach("uid:1")
		w.settle(time.Minute)
		second := only(t, g, Active)
		if second.Reason != ReasonRemoved || second.Replaces != first.ID {
			t.Errorf("%+v", second)
		}
		if kept := only(t, g, Kept); kept.ID != first.ID || kept.ReplacedBy != second.ID {
			t.Errorf("%+v", kept)
		}
		for range 48 { // a store that loses every key
			w.lock(func() { u.keys["nss:default"] = nil })
			g.Attach("uid:1")
			w.settle(time.Hour)
		}
		if n := len(w.issued); n != 2 {
			t.Errorf("%d certificates", n)
		}
		if p := only(t, g, Active).Problem; p == nil || p.Code != CodeKeyMissing {
			t.Errorf("problem %+v", p)
		}
		stop()
	})
}

// TestKeyRemovedOnTheWay: a key that vanished before its certificate came is
// worth one more enrollment at once, and no more.
func TestKeyRemovedOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		w.pendings = 1 << 30
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		for range 5 {
			w.settle(time.Hour)
			w.lock(func() { u.keys["nss:default"] = nil })
			g.Attach("uid:1")
		}
		w.settle(time.Hour)
		if n := len(w.csrs); n != 2 {
			t.Errorf("%d requests for certificates", n)
		}
		stop()
	})
}

// TestOtherKeyUnderOurName: a cloned or rebuilt store may hold another key.
func TestOtherKeyUnderOurName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		first := only(t, g, Active)
		w.lock(func() { u.keys["nss:default"][first.ID].private = newKey(t) })
		g.Attach("uid:1")
		w.settle(time.Minute)
		if got := only(t, g, Active); got.Reason != ReasonRemoved {
			t.Errorf("%+v", got)
		}
		stop()
	})
}

func TestCertificatePutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		_, _ = g.Renew(Filter{}, ReasonAdministrator)
		w.settle(time.Minute)
		for _, k := range u.keys["nss:default"] {
			w.lock(func() { k.chain = nil })
		}
		g.Attach("uid:1")
		w.settle(time.Minute)
		w.check(2) // demands a chain beside every key, so also beside the kept one
		stop()
	})
}

// TestOrphans: a key that nobody knows goes only after central management was
// asked; one that central knows is finished.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		w.plant(t, u, "smime-1", "", time.Time{})
		pending := w.plant(t, u, "smime-2", "", time.Time{})
		w.person("uid:2") // has the mailbox that smime-2 was submitted for
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(10 * day)
		if u.discards > 0 || len(u.keys["nss:default"]) != 3 || !g.NeedsKnown() {
			t.Fatalf("%d keys, %d discarded, needs known %v", len(u.keys["nss:default"]), u.discards, g.NeedsKnown())
		}
		csr := newCSR(t, pending.private)
		w.lock(func() {
			w.csrs["smime-2"] = csr
			w.refs["ref-2"] = Submission{ID: "smime-2", CSR: csr, User: "uid:1", Mailboxes: []string{"x@example.com"}}
		})
		known := []Known{{ID: "smime-2", Reference: "ref-2", User: "uid:1", Mailboxes: []string{"x@example.com"},
			Profile: "other", Store: "nss:default", CSR: csr}}
		if err := g.Restore(known); err != nil {
			t.Fatal(err)
		}
		w.settle(2 * time.Hour)
		if u.discards != 1 || u.keys["nss:default"]["smime-1"] != nil || u.keys["nss:default"]["smime-2"] == nil || g.NeedsKnown() {
			t.Errorf("%d discarded, keys %v", u.discards, u.keys)
		}
		stop()
	})
}

// TestNothingWithoutLedger: without the record nothing is done at all.
func TestNothingWithoutLedger(t *testing.T) {
	w := newWorld(t)
	g, _ := w.engine()
	if err := g.Run(t.Context()); err == nil {
		t.Error("ran")
	}
	if err := g.Apply(w.policy()); err == nil {
		t.Error("applied")
	}
	if err := g.Restore(nil); err == nil {
		t.Error("restored")
	}
}

// TestAdoption: the record was lost without anybody noticing. The newest sound
// certificate of the slot goes on, the others are kept, nothing is asked for.
func TestAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		now := time.Now()
		w.plant(t, u, "smime-old", "a@example.com", now.Add(-400*day))
		w.plant(t, u, "smime-less", "a@example.com", now.Add(-100*day))
		w.plant(t, u, "smime-best", "a@example.com", now.Add(-50*day))
		w.plant(t, u, "smime-else", "other@example.com", now.Add(-10*day))
		broken := w.plant(t, u, "smime-broken", "a@example.com", now.Add(-10*day))
		broken.chain = [][]byte{{1, 2, 3}}
		a := assignment("uid:1", "a@example.com")
		a.Stores = []string{"nss:default"}
		// Found before the plan: the inventory comes with the policy.
		g, _ := w.engine()
		g.Rebuilding = true
		stop := w.runEngine(g, w.policy(a))
		w.settle(time.Hour)
		if len(w.record) != 0 {
			t.Fatalf("while rebuilding: %+v", w.record)
		}
		if err := g.Restore(nil); err != nil {
			t.Fatal(err)
		}
		w.settle(2 * time.Hour)
		if !g.NeedsKnown() {
			t.Error("central is not asked about a certificate that policy does not give")
		}
		if err := g.Restore(nil); err != nil {
			t.Fatal(err)
		}
		w.settle(2 * time.Hour)
		states := map[ID]State{}
		for _, e := range g.Enrollments() {
			states[e.ID] = e.State
		}
		if g.NeedsKnown() {
			t.Error("central is asked again although it answered")
		}
		if states["smime-old"] != Kept || states["smime-less"] != Kept || states["smime-else"] != Kept {
			t.Errorf("%v", states)
		}
		if states["smime-best"] != Active || len(w.requests) != 0 {
			t.Errorf("%v, %d requests", states, len(w.requests))
		}
		if u.discards != 0 || len(u.keys["nss:default"]) < 5 {
			t.Error("a key was lost")
		}
		stop()
	})
}

// TestRestore: the record was damaged; central's list and the stores give it back.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		p := w.policy(assignment("uid:1", "a@example.com"))
		g, stop := w.run(p)
		w.settle(time.Minute)
		for range 2 {
			_, _ = g.Renew(Filter{}, ReasonAdministrator)
			w.settle(time.Minute)
		}
		was := only(t, g, Active)
		stop()
		var known []Known
		for _, e := range w.record {
			known = append(known, Known{ID: e.ID, Reference: e.Reference, User: "uid:1", Mailboxes: e.Assignment.Mailboxes,
				Profile: e.Assignment.Profile.Name, Store: e.Store, CSR: e.CSR, Chain: e.Chain, Replaces: e.Replaces, Submitted: e.Created})
		}
		known = append(known, Known{ID: "smime-00000000-refused", Refused: true, User: "uid:1", Mailboxes: []string{"a@example.com"}, Profile: "employee-dual", Store: "nss:default"})
		clear(w.record)
		requests := len(w.requests)
		g, _ = w.engine()
		g.Rebuilding = true
		stop = w.runEngine(g, p)
		w.settle(day)
		if !g.NeedsKnown() || len(w.record) != 0 || u.discards != 0 {
			t.Errorf("before central's list: %+v", w.record)
		}
		if err := g.Restore(known); err != nil {
			t.Fatal(err)
		}
		w.settle(day)
		if got := only(t, g, Active); got.ID != was.ID {
			t.Errorf("%s instead of %s", got.ID, was.ID)
		}
		if len(w.requests) != requests || len(w.issued) != 3 {
			t.Errorf("%d requests more, %d certificates", len(w.requests)-requests, len(w.issued))
		}
		w.check(3)
		stop()
	})
}

// TestLockedStore: what the store says is problem enough, and no attempt is
// counted for what waits.
func TestLockedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.locked = true
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(day)
		e := only(t, g, Consented)
		if e.Problem == nil || e.Problem.Code != CodeStoreLocked || e.Attempts != 0 {
			t.Errorf("%+v", e.Problem)
		}
		w.lock(func() { u.locked = false })
		g.Attach("uid:1")
		w.settle(time.Minute)
		w.check(1)
		// Locked later: the credential stays in use, with the problem beside it.
		w.lock(func() { u.locked = true })
		w.settle(2 * day)
		if e := only(t, g, Active); e.Problem == nil || e.Problem.Code != CodeStoreLocked {
			t.Errorf("%+v", e.Problem)
		}
		w.lock(func() { u.locked = false })
		w.settle(day)
		if e := only(t, g, Active); e.Problem != nil {
			t.Errorf("%+v", e.Problem)
		}
		stop()
	})
}

func TestAbsentUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		u.present = false
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Hour)
		if e := only(t, g, Wanted); e.Problem == nil || e.Problem.Code != CodeUserAbsent {
			t.Errorf("%+v", e)
		}
		w.lock(func() { u.present = true })
		g.Attach("uid:1")
		w.settle(time.Minute)
		w.check(1)
		if len(w.record) != 1 {
			t.Errorf("%d enrollments", len(w.record))
		}
		stop()
	})
}

// TestStorePatterns: one credential per matching store; a store that is there
// later gets its own, without another question.
func TestStorePatterns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		algorithms := u.stores[0].Algorithms
		u.stores = append(u.stores, StoreFound{Name: "nss:work", Protection: "software", Algorithms: algorithms})
		a := assignment("uid:1", "a@example.com")
		a.Stores, a.Consent = []string{"nss:*"}, ConsentAsk
		g, stop := w.run(w.policy(a))
		w.settle(time.Minute)
		w.check(1)
		w.lock(func() {
			u.stores = append(slices.Clone(u.stores), StoreFound{Name: "nss:new", Protection: "software", Algorithms: algorithms})
		})
		g.Attach("uid:1")
		w.settle(time.Minute)
		w.check(1)
		if len(w.record) != 3 || u.asked != 1 {
			t.Errorf("%d enrollments, asked %d times", len(w.record), u.asked)
		}
		stop()
	})
}

// TestKeptKeyFails: an old key that no longer decrypts is said so, and nothing
// is deleted for it.
func TestKeptKeyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		_, _ = g.Renew(Filter{}, ReasonAdministrator)
		w.settle(time.Minute)
		w.lock(func() { w.proofFail = "It does not decrypt." })
		if ids := g.ProveNow(Filter{}); len(ids) != 2 {
			t.Errorf("to prove: %v", ids)
		}
		w.settle(time.Minute)
		if e := only(t, g, Kept); e.Problem == nil || e.Problem.Code != CodeOldKeyUnusable {
			t.Errorf("%+v", e.Problem)
		}
		if e := only(t, g, Active); e.Problem == nil || e.Problem.Code != CodeProofFailed {
			t.Errorf("%+v", e.Problem)
		}
		w.lock(func() { w.proofFail = "" })
		w.settle(2 * day)
		if a, k := only(t, g, Active), only(t, g, Kept); a.Problem != nil || k.Problem != nil {
			t.Errorf("%+v, %+v", a.Problem, k.Problem)
		}
		stop()
	})
}

// TestNotProvedNotActive: nothing is in use that did not work once.
func TestNotProvedNotActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		w.proofFail = "It does not sign."
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(10 * day)
		if e := only(t, g, Prepared); e.Problem == nil || e.Problem.Code != CodeProofFailed || e.Proof.OK() {
			t.Errorf("%+v", e)
		}
		w.lock(func() { w.proofFail = "" })
		w.settle(time.Hour)
		w.check(1)
		stop()
	})
}

// TestBadCertificates: each is refused before it is installed, the old one
// stays, and the authority is not asked again and again (faults.md F12).
func TestBadCertificates(t *testing.T) {
	for name, mangle := range map[string]func(*x509.Certificate){
		"other mailbox": func(c *x509.Certificate) { c.EmailAddresses = []string{"b@example.com"} },
		"server's EKU":  func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"ended":         func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				u := w.person("uid:1")
				g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
				w.settle(time.Minute)
				good := only(t, g, Active)
				w.lock(func() { w.mangle = mangle })
				before := len(w.requests)
				_, _ = g.Renew(Filter{}, ReasonAdministrator)
				w.settle(10 * day)
				if got := only(t, g, Active); got.ID != good.ID {
					t.Errorf("%+v", got)
				}
				if got := only(t, g, Over); got.Problem.Code != CodeCertificateRejected {
					t.Errorf("%+v", got.Problem)
				}
				if n := len(w.requests) - before; n > 12 {
					t.Errorf("%d requests", n)
				}
				for id, k := range u.keys["nss:default"] {
					if id != good.ID && k.chain != nil {
						t.Error("a bad certificate was installed")
					}
				}
				stop()
			})
		})
	}
}
