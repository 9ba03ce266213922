package enroll

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func unreachable() error {
	return &Error{Kind: Transient, Code: CodeControlUnreachable, Err: errors.New("no route")}
}

// TestTenYears renews for ten years of virtual time, with outages of two weeks
// and a user who is away for a month; nothing ever expires, no key is lost.
func TestTenYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.person("uid:1")
		w.person("uid:2")
		g, _ := w.engine()
		g.Timing = Timing{Look: 2 * time.Hour, InventoryInterval: day}
		stop := w.runEngine(g, w.policy(assignment("uid:1", "a@example.com"), assignment("uid:2", "b@example.com")))
		w.settle(2 * time.Hour)
		months, years := 120, 10
		if testing.Short() {
			months, years = 24, 2
		}
		for range months {
			w.mu.Lock()
			w.authErr = nil
			if rand.IntN(3) == 0 {
				w.authErr = unreachable
			}
			u.present = rand.IntN(6) > 0
			w.mu.Unlock()
			w.settle(14 * day)
			w.mu.Lock()
			w.authErr, u.present = nil, true
			w.mu.Unlock()
			g.Attach("uid:1")
			w.settle(16*day + 10*time.Hour)
			for _, e := range g.Enrollments() {
				if e.State == Active && (time.Now().After(e.NotAfter) || e.Problem != nil) {
					t.Errorf("%s: ended %s, %+v", time.Now(), e.NotAfter, e.Problem)
				}
			}
		}
		stop()
		certificates := len(w.issued) / 2
		if certificates < years+1 || certificates > years+4 {
			t.Errorf("%d certificates in %d years", certificates, years)
		}
		for name, u := range w.users {
			if keys := u.keys["nss:default"]; len(keys) < years+1 || len(keys) > years+4 {
				t.Errorf("%s has %d keys", name, len(keys))
			}
			// Daily, over each of a growing number of keys, less the days away.
			if mean := u.proofs / (years * 365); mean < years/2 || mean > years/2+3 {
				t.Errorf("%s: %d proofs a day", name, mean)
			}
		}
		proved := 0
		for _, ev := range w.told {
			if ev.Code == EventProved {
				proved++
			}
		}
		if proved > 3*len(w.issued) {
			t.Errorf("%d proofs told of: the trail must stay bounded", proved)
		}
		if u.asked != 0 || len(u.notices) != 0 {
			t.Errorf("silent mode: asked %d, told %v", u.asked, u.notices)
		}
	})
}

// TestOutage: while central is away there is at most one request in 30 minutes
// on average for the whole agent (faults.md F6), however many enrollments wait;
// afterwards all is well within one cap (I5).
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.authErr = unreachable
		var as []Assignment
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			w.person(name)
			as = append(as, assignment(name, name+"@example.com"))
		}
		g, stop := w.run(w.policy(as...))
		w.settle(30 * day)
		w.mu.Lock()
		asked := len(w.requests)
		w.authErr = nil
		w.mu.Unlock()
		if asked > 30*48 {
			t.Errorf("%d requests in 30 days", asked)
		}
		if asked < 30*24 {
			t.Errorf("only %d requests in 30 days: I5 would not hold", asked)
		}
		g.Wake()
		w.settle(g.Timing.OutageCap + g.Timing.BackoffCap)
		synctest.Wait()
		w.check(1)
		stop()
	})
}

// TestFleet: after six hours of partition a fleet comes back spread over one cap
// (faults.md F15).
//
// SMIME_AGENT_FLEET sets the number of agents; 100000 take 320 s of CPU and 7 GB.
func TestFleet(t *testing.T) {
	fleet := 300
	if text := os.Getenv("SMIME_AGENT_FLEET"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("SMIME_AGENT_FLEET is %q", text)
		}
		fleet = n
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.authErr = unreachable
		var stops []func()
		var longest, outage time.Duration
		for i := range fleet {
			name := fmt.Sprintf("uid:%d", i)
			w.person(name)
			p := &process{world: w}
			// Each agent has a record of its own; the world's is for one machine.
			// As in the service, which wakes it: what is late by a minute changes nothing here.
			g := &Engine{Ledger: noLedger{}, Sessions: p, Authority: p, Now: w.now, Timing: Timing{Sleep: time.Hour}}
			stops = append(stops, w.runEngine(g, w.policy(assignment(name, name+"@example.com"))))
			longest, outage = g.Timing.OutageCap+g.Timing.BackoffCap, g.Timing.OutageCap
		}
		w.settle(6 * time.Hour)
		from := time.Now()
		w.lock(func() { w.authErr, w.requests = nil, nil })
		w.settle(longest)
		if _, certificates, _ := w.counts(); certificates != fleet {
			t.Errorf("%d of %d certificates after one cap", certificates, fleet)
		}
		peak, mean := busiest(w.requests, from, outage), float64(fleet)/slots
		t.Logf("%d agents: %.2f times the mean of %v in the busiest tenth of it", fleet, float64(peak)/mean, outage)
		if float64(peak) > 2*mean+5*math.Sqrt(2*mean) { // five standard deviations are for chance
			t.Errorf("%d of %d agents in one tenth of %v", peak, fleet, outage)
		}
		for _, stop := range stops {
			stop()
		}
	})
}

// slots is into how many parts a fleet's arrivals are counted.
const slots = 10

// busiest counts the agents of the part of the span in which most of them came:
// each submits, and collects at once.
func busiest(requests []time.Time, from time.Time, span time.Duration) int {
	arrivals := map[int]int{}
	for _, at := range requests {
		arrivals[int(at.Sub(from)/(span/slots))]++
	}
	peak := 0
	for _, n := range arrivals {
		peak = max(peak, n/2)
	}
	return peak
}

// TestFloor: whatever wakes an enrollment, and whatever RetryAfter says, one step
// is not tried more often than the floor allows (N19), nor more often a day than
// the quota.
func TestFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		w.pendings = 1 << 30
		g, _ := w.engine()
		g.Limits = Limits{RequestsPerDay: 100}
		stop := w.runEngine(g, w.policy(assignment("uid:1", "a@example.com")))
		for range 60 * 60 {
			w.settle(time.Second)
			g.Attach("uid:1")
			g.Wake()
			_, _ = g.Renew(Filter{}, ReasonPerson)
			var refs []string
			w.lock(func() { refs = slices.Collect(maps.Keys(w.refs)) })
			g.Ready(refs)
		}
		if n := len(w.requests); n > 100 {
			t.Errorf("%d requests in an hour", n)
		}
		for i := 3; i < len(w.requests); i++ {
			if d := w.requests[i].Sub(w.requests[i-1]); d < g.Timing.Floor {
				t.Errorf("request %d after %s", i, d)
			}
		}
		if len(w.record) != 1 {
			t.Errorf("%d enrollments", len(w.record))
		}
		w.settle(23 * time.Hour)
		if n := len(w.requests); n > 101 {
			t.Errorf("%d requests in a day", n)
		}
		stop()
	})
}

// TestLostReplies: every second reply of the authority is lost after it did its
// work (faults.md F7).
func TestLostReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		p := &process{world: w}
		lossy := &lossyAuthority{Authority: p}
		g := &Engine{Ledger: p, Sessions: p, Authority: lossy, Now: w.now}
		stop := w.runEngine(g, w.policy(assignment("uid:1", "a@example.com")))
		w.settle(12 * time.Hour)
		synctest.Wait()
		w.check(1)
		if lossy.calls < 4 {
			t.Errorf("%d calls: nothing was lost", lossy.calls)
		}
		stop()
	})
}

// TestClock moves the clock while a credential is in use (faults.md F5, N17).
func TestClock(t *testing.T) {
	for name, jump := range map[string]time.Duration{
		"hour ahead": time.Hour, "hour back": -time.Hour, "day ahead": day, "day back": -day,
		"suspended for a month": 30 * day, "ten years ahead": 3653 * day, "back to 1990": -3653 * day,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.person("uid:1")
				g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
				w.settle(time.Hour)
				before, _, _ := w.counts()
				w.offset.Store(int64(jump))
				w.settle(2 * day)
				w.offset.Store(0)
				asked, _, _ := w.counts()
				asked -= before
				// A clock ten years ahead asks for one renewal; its certificate cannot be
				// believed, so it is asked for again once a day.
				if jump.Abs() <= 30*day && asked > 0 || asked > 2*2 {
					t.Errorf("%d requests", asked)
				}
				w.settle(2 * day)
				if got := only(t, g, Active); got.Problem != nil || time.Now().After(got.NotAfter) {
					t.Errorf("%+v", got)
				}
				_, n, proofs := w.counts()
				if n > 2 {
					t.Errorf("%d certificates", n)
				}
				w.settle(2 * day)
				if _, _, later := w.counts(); later == proofs {
					t.Error("no proof since the clock is right again")
				}
				stop()
			})
		})
	}
}

// TestSleep: a deadline that passed while the timers stood still is seen at the
// next look.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		g, stop := w.run(w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Hour)
		first := only(t, g, Active)
		ahead := time.Until(first.RenewAt) + time.Hour
		w.lock(func() { w.caOffset = ahead })
		w.offset.Store(int64(ahead))
		w.settle(15 * time.Minute)
		synctest.Wait()
		if got := only(t, g, Active); got.Reason != ReasonRenewalDue || got.Replaces != first.ID {
			t.Errorf("%+v", got)
		}
		stop()
	})
}

// TestIdle: an idle engine wakes about once a minute.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		g, _ := w.engine()
		var looks atomic.Int64
		g.Now = func() time.Time { looks.Add(1); return w.now() }
		stop := w.runEngine(g, w.policy(assignment("uid:1", "a@example.com")))
		w.settle(time.Hour)
		looks.Store(0)
		w.settle(time.Hour)
		if n := looks.Load(); n > 150 { // a look takes the time once or twice
			t.Errorf("the clock was read %d times in an hour", n)
		}
		stop()
	})
}
