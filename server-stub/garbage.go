package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// garbageRoom is how much garbage a serving process may make before it is
	// collected. A certificate leaves some 150 kB of it, from the lint above all, over
	// a live heap of 10 MB: with Go's own bound of as much garbage as is alive, a fifth
	// of the CPU time goes into collections.
	garbageRoom = 128 << 20
	// leastPercent is Go's own bound. It counts where many connections are alive.
	leastPercent = 100
	// leastHeap is the heap that Go's percentage is of where less is alive, or nothing was collected yet.
	leastHeap = 4 << 20
)

// room is how much garbage may lie about before it is collected, in octets.
type room struct {
	octets uint64
	mu     sync.Mutex
	ended  bool
}

// end leaves the percentage as it is.
func (r *room) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// leaveRoom has garbage collected when there are [garbageRoom] of it, or as much
// as is alive if that is more. A GOGC of the environment is the administrator's word, and stays;
// so does a GOMEMLIMIT, which has the collector run earlier whatever is set here.
func leaveRoom() {
	if os.Getenv("GOGC") == "" {
		(&room{octets: garbageRoom}).adjust()
	}
}

// adjust sets the percentage for what is alive now, and does so again after the
// next collection: that is when what nothing points to is cleaned up.
func (r *room) adjust() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := max(100*r.octets/max(live[0].Value.Uint64(), leastHeap), leastPercent)
	debug.SetGCPercent(int(min(percent, math.MaxInt32)))
	mark := &struct{ next *byte }{} // with a pointer, so that it shares its memory with nothing that lives on
	runtime.AddCleanup(mark, (*room).adjust, r)
}
