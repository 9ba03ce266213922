package service

import (
	"container/heap"
	"fmt"
	"math"
	"testing"
	"time"

	"smime-agent/server-stub/server"
)

// A fleet in virtual time: the waits are those of the service ([retryWait]) and
// of central management ([server.NextSync]); only the calls are left out.
const (
	fleetInterval = time.Hour        // sync_interval of server.yaml
	fleetCap      = 30 * time.Minute // retry_cap of the settings
	fleetSlot     = time.Minute
)

// fleetSize is smaller where time is short, as under the race detector.
func fleetSize() int {
	if testing.Short() {
		return 10_000
	}
	return 100_000
}

// caller is one device: when it calls next, and how often it failed in a row.
type caller struct {
	id       string
	next     time.Time
	failures int
	informed bool
}

type callers []*caller

func (c callers) Len() int           { return len(c) }
func (c callers) Less(i, j int) bool { return c[i].next.Before(c[j].next) }
func (c callers) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *callers) Push(x any)        { *c = append(*c, x.(*caller)) }
func (c *callers) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// fleetRun is what happens to a fleet that has been running for long.
type fleetRun struct {
	// down is for how long central management cannot be reached, from the start on.
	down time.Duration
	// cut has every device notice the start at once, as those do that hold a call.
	cut bool
	// watch is how long to look on.
	watch time.Duration
}

// arrivals plays it, and counts the calls that reach central management by slot,
// from the moment on when it can be reached, and the moment when all have called.
func (r fleetRun) arrivals() (slots []int, all time.Duration) {
	start := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	up := start.Add(r.down)
	fleet := make(callers, fleetSize())
	for i := range fleet {
		id := fmt.Sprintf("%024x", i)
		// A device called an unknown part of its wait ago; one whole interval before, it was given its next place.
		last := start.Add(-fleetInterval)
		for !last.Add(server.NextSync(id, last, fleetInterval)).After(start) {
			last = last.Add(server.NextSync(id, last, fleetInterval))
		}
		fleet[i] = &caller{id: id, next: last.Add(server.NextSync(id, last, fleetInterval))}
		if r.cut {
			fleet[i].next = start
		}
	}
	heap.Init(&fleet)
	slots = make([]int, int(r.watch/fleetSlot))
	missing := len(fleet)
	for {
		c := fleet[0]
		if !c.next.Before(up.Add(r.watch)) {
			return slots, all
		}
		if now := c.next; now.Before(up) {
			c.failures++
			c.next = now.Add(retryWait(fleetCap, c.failures, 0))
		} else {
			slots[int(now.Sub(up)/fleetSlot)]++
			if !c.informed {
				c.informed = true
				if missing--; missing == 0 {
					all = now.Sub(up)
				}
			}
			c.failures, c.next = 0, now.Add(server.NextSync(c.id, now, fleetInterval))
		}
		heap.Fix(&fleet, 0)
	}
}

// TestFleetArrivals is case F15 for a fleet of 100,000: after a policy push, a
// restart that every device notices at once, and a partition of six hours. After
// the first cap no minute has more than twice the mean, and everybody has called
// within one cap or, where nobody was cut off, one and a half intervals.
func TestFleetArrivals(t *testing.T) {
	for name, c := range map[string]struct {
		run    fleetRun
		within time.Duration
	}{
		"policy push":               {fleetRun{watch: 4 * time.Hour}, fleetInterval * 3 / 2},
		"restart of 30 seconds":     {fleetRun{down: 30 * time.Second, cut: true, watch: 4 * time.Hour}, fleetCap},
		"restart of 10 minutes":     {fleetRun{down: 10 * time.Minute, cut: true, watch: 4 * time.Hour}, fleetCap},
		"partition of six hours":    {fleetRun{down: 6 * time.Hour, watch: 4 * time.Hour}, fleetCap},
		"partition noticed at once": {fleetRun{down: 6 * time.Hour, cut: true, watch: 4 * time.Hour}, fleetCap},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slots, all := c.run.arrivals()
			first, later := slots[:int(fleetCap/fleetSlot)], slots[int(fleetCap/fleetSlot):]
			early, _ := busiestSlot(first)
			peak, mean := busiestSlot(later)
			t.Logf("everybody called within %v; busiest minute before the first cap %d, after it %d, %.2f times the mean of %.0f",
				all.Round(time.Second), early, peak, float64(peak)/mean, mean)
			if all == 0 || all > c.within {
				t.Errorf("the last device called after %v, want within %v", all, c.within)
			}
			if float64(peak) > 2*mean+5*math.Sqrt(mean) {
				t.Errorf("%d calls in one minute, the mean is %.0f", peak, mean)
			}
		})
	}
}

func busiestSlot(slots []int) (peak int, mean float64) {
	for _, n := range slots {
		peak = max(peak, n)
		mean += float64(n) / float64(len(slots))
	}
	return peak, mean
}
