package platform

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// calmAfter is how long nothing must have happened before a process rests.
	calmAfter = 30 * time.Second
	// calmAtMost bounds the wait for who is stirred again and again: a rest costs
	// some milliseconds of CPU time.
	calmAtMost = 16 * time.Minute
	// shortRest is one that was not worth it.
	shortRest = 5 * time.Minute
	// restRoom is how much may become garbage in a rest before it is collected; Go's
	// own least heap is as large.
	restRoom = 4 << 20
)

// Thrift lets a process that has nothing to do hold little memory and sleep. In a
// rest what it does not need is given back to the system, and the collection that
// Go forces every two minutes, with the threads that it wakes, is left out;
// garbage is collected when there is some. Whatever may need much memory calls
// [Thrift.Stir] first.
type Thrift struct {
	stirs   atomic.Uint64
	resting atomic.Bool
	roused  chan struct{}
	// lieDown begins a rest and gives its end.
	lieDown func() (getUp func())
	getUp   atomic.Pointer[func()]
}

// NewThrift gives one that is awake. A process has one at a time.
func NewThrift() *Thrift { return &Thrift{roused: make(chan struct{}, 1), lieDown: lieDown} }

// Stir says that something happens. It is cheap and never blocks for long; nil does
// nothing.
func (t *Thrift) Stir() {
	if t == nil {
		return
	}
	t.stirs.Add(1)
	t.rouse()
}

// rouse ends a rest.
func (t *Thrift) rouse() {
	if t.resting.CompareAndSwap(true, false) {
		(*t.getUp.Load())()
		select {
		case t.roused <- struct{}{}:
		default:
		}
	}
}

// Run rests whenever there is calm, until ctx ends.
func (t *Thrift) Run(ctx context.Context) {
	defer t.rouse()
	for wait := calmAfter; ; {
		stirs := t.stirs.Load()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if t.stirs.Load() != stirs {
			continue
		}
		began := time.Now()
		getUp := t.lieDown()
		t.getUp.Store(&getUp)
		t.resting.Store(true)
		if t.stirs.Load() != stirs { // meanwhile, and saw no rest
			t.rouse()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.roused:
		}
		if wait = min(2*wait, calmAtMost); time.Since(began) >= shortRest {
			wait = calmAfter
		}
	}
}

// lieDown gives back what is not needed and has the collector wait for garbage.
func lieDown() (getUp func()) {
	debug.FreeOSMemory()
	giveBack()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	limit := debug.SetMemoryLimit(-1)
	held := int64(min(m.Sys-m.HeapReleased, math.MaxInt64/2))
	debug.SetMemoryLimit(min(limit, held+restRoom))
	percent := debug.SetGCPercent(-1)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}
