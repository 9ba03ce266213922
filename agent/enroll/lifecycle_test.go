package enroll

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestNoProgramsNoStep: where policy manages no mail program nobody is asked to
// prepare one, and the way goes on.
func TestNoProgramsNoStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, u, g, _ := managed(t, func(r *MailRule) { r.Programs = nil })
		if e := only(t, g, Active); e.Mail != nil || len(u.prepares) != 0 {
			t.Errorf("%d looks at mail programs: %+v", len(u.prepares), e.Mail)
		}
		w.lock(func() {
			for _, record := range w.versions {
				for _, e := range record {
					if e.State == Installed {
						t.Error("a resting place between two steps of which the second does nothing")
					}
				}
			}
		})
	})
}

// TestOutdatedWhileBusy: what policy says of an enrollment while a step is on its way
// is not forgotten, although the step alone is no reason to plan.
func TestOutdatedWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Minute)
		stop() // nobody else plans from here on
		e := g.order[0]
		e.e.State, e.e.CSR, e.busy = Consented, nil, true
		other := e.e.Assignment
		other.DisplayName = "Another"
		if err := g.takeOver(e, other); err != nil || e.e.Assignment.DisplayName == "Another" || !e.outdated {
			t.Errorf("%v, outdated %t, %+v", err, e.outdated, e.e.Assignment)
		}
		g.dirty = false
		g.release(job{entry: e})
		if !g.dirty || e.outdated {
			t.Errorf("dirty %t, outdated %t", g.dirty, e.outdated)
		}
	})
}

// TestBelief: a check counts for the very same only, and not for long.
func TestBelief(t *testing.T) {
	now := time.Now()
	rules := func() ChainRules {
		return ChainRules{CSR: []byte{1}, Mailboxes: []string{"a@example.com"}, Sign: true, Anchors: [][]byte{{2}}, Now: now, Ahead: time.Minute}
	}
	b := belief{rules(), [][]byte{{3}, {4}}}
	for name, change := range map[string]func(r *ChainRules, chain *[][]byte){
		"same":                       func(*ChainRules, *[][]byte) {},
		"own leaf among the earlier": func(r *ChainRules, _ *[][]byte) { r.Earlier = [][]byte{{3}} },
		"key":                        func(r *ChainRules, _ *[][]byte) { r.CSR = []byte{9} },
		"anchors":                    func(r *ChainRules, _ *[][]byte) { r.Anchors = [][]byte{{9}} },
		"mailbox":                    func(r *ChainRules, _ *[][]byte) { r.Mailboxes = []string{"b@example.com"} },
		"later":                      func(r *ChainRules, _ *[][]byte) { r.Now = now.Add(time.Hour) },
		"clock set back":             func(r *ChainRules, _ *[][]byte) { r.Now = now.Add(-time.Second) },
		"chain":                      func(_ *ChainRules, chain *[][]byte) { *chain = [][]byte{{3}, {9}} },
	} {
		r, chain := rules(), [][]byte{{3}, {4}}
		change(&r, &chain)
		if got, want := b.covers(chain, r), name == "same" || name == "own leaf among the earlier"; got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if (belief{}).covers(nil, ChainRules{Now: now}) {
		t.Error("nothing was believed, and covers something")
	}
}
