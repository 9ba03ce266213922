package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func gcPercent() uint64 {
	now := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(now)
	return now[0].Value.Uint64()
}

// TestGarbageHasRoom: with little alive there may be much more garbage than that,
// with much alive not more than as much; and again when it is let go of.
func TestGarbageHasRoom(t *testing.T) {
	before := debug.SetGCPercent(leastPercent)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	settle := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: still %d%%", what, gcPercent())
			}
			runtime.GC() // the cleanup comes some time after it
		}
	}
	r := &room{octets: 64 << 20}
	defer r.end()
	r.adjust()
	settle("little is alive", func() bool { return gcPercent() >= 2*leastPercent })
	alive := make([]byte, 2*r.octets)
	settle("much is alive", func() bool { return gcPercent() == leastPercent })
	runtime.KeepAlive(alive)
	settle("little is alive again", func() bool { return gcPercent() >= 2*leastPercent })
}

// TestTheEnvironmentsCollectorStays: who sets GOGC means it.
func TestTheEnvironmentsCollectorStays(t *testing.T) {
	before := debug.SetGCPercent(55)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	t.Setenv("GOGC", "55")
	leaveRoom()
	if got := gcPercent(); got != 55 {
		t.Errorf("%d%%", got)
	}
}
