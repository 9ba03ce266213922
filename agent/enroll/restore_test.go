package enroll

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// known is what central management has of the user's requests.
func (w *world) known() []Known {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Known
	for ref, s := range w.refs {
		k := Known{ID: s.ID, Reference: ref, User: s.User, Mailboxes: s.Mailboxes, Profile: s.Profile, Store: s.Store,
			CSR: s.CSR, Replaces: s.Replaces}
		if issued := w.issued[s.ID]; len(issued) > 0 {
			k.Chain = [][]byte{issued[0].Raw, w.ca.issuing.Raw}
		}
		all = append(all, k)
	}
	return all
}

// TestOlderRecord puts back every version that the record ever had, of a first
// enrollment that was asked about and of two renewals (case F8). Whatever the
// version, everything is again as it was: nobody is asked again, no request is
// made, and no certificate issued.
func TestOlderRecord(t *testing.T) {
	for version := 0; ; version++ {
		last := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			u := w.person("uid:1")
			p := w.policy(asking("uid:1", "a@example.com"))
			g, stop := w.run(p)
			w.settle(time.Minute)
			for range 2 {
				_, _ = g.Renew(Filter{}, ReasonAdministrator)
				w.settle(time.Minute)
			}
			was := only(t, g, Active)
			stop()
			requests, certificates, _ := w.counts()
			asked, keys := u.asked, len(u.keys["nss:default"])
			last = version == len(w.versions)-1
			w.record = maps.Clone(w.versions[version])
			g, _ = w.engine()
			g.Rebuilding = true
			stop = w.runEngine(g, p)
			g.Attach("uid:1")
			w.settle(time.Hour)
			if err := g.Restore(w.known()); err != nil {
				t.Fatal(err)
			}
			w.settle(2 * time.Hour)
			if got := only(t, g, Active); got.ID != was.ID {
				t.Errorf("%s instead of %s", got.ID, was.ID)
			}
			if r, c, _ := w.counts(); u.asked != asked || r != requests || c != certificates || len(u.keys["nss:default"]) != keys {
				t.Errorf("asked %d times more; %d requests, %d certificates, %d keys more", u.asked-asked, r-requests, c-certificates, len(u.keys["nss:default"])-keys)
			}
			for _, e := range g.Enrollments() {
				if e.State != Active && e.State != Kept {
					t.Errorf("%s is %s", e.ID, e.State)
				}
			}
			stop()
			if t.Failed() {
				t.Fatalf("version %d:\n%s", version, w.summary())
			}
		})
		if last {
			t.Logf("%d versions", version+1)
			if version < 18 {
				t.Error("too few versions: the test looks at too little")
			}
			return
		}
	}
}
