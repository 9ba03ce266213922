package platform

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestThriftRests: after a calm there is one rest, which any stir ends; who is
// stirred soon after waits longer each time, and a long rest forgives that.
func TestThriftRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var rests, ups atomic.Int64
		th := NewThrift()
		th.lieDown = func() func() { rests.Add(1); return func() { ups.Add(1) } }
		ended := make(chan struct{})
		go func() { th.Run(ctx); close(ended) }()
		want := func(after time.Duration, r, u int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if rests, ups := rests.Load(), ups.Load(); rests != r || ups != u {
				t.Errorf("%d rests and %d ends, want %d and %d", rests, ups, r, u)
			}
		}
		want(calmAfter-time.Second, 0, 0)
		th.Stir()
		want(2*time.Second, 0, 0) // it was stirred
		want(calmAfter, 1, 0)
		want(time.Minute, 1, 0)
		th.Stir()
		th.Stir()
		want(time.Second, 1, 1)
		want(calmAfter, 1, 1) // the rest was short
		want(calmAfter, 2, 1)
		want(24*time.Hour, 2, 1)
		th.Stir()
		want(calmAfter+time.Second, 3, 2)
		for range 20 {
			th.Stir()
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if rests := rests.Load(); rests > 6 {
			t.Errorf("%d rests under a stir each minute", rests)
		}
		cancel()
		<-ended
		if rests, ups := rests.Load(), ups.Load(); rests != ups {
			t.Errorf("%d rests, %d ended", rests, ups)
		}
		(*Thrift)(nil).Stir()
	})
}

// TestLieDown: the collector is as it was after a rest, and in one garbage is
// collected all the same.
func TestLieDown(t *testing.T) {
	percent, limit := debug.SetGCPercent(77), debug.SetMemoryLimit(-1)
	defer debug.SetGCPercent(percent)
	getUp := lieDown()
	var before, after debug.GCStats
	debug.ReadGCStats(&before)
	for range 64 {
		garbage = make([]byte, 1<<20)
	}
	debug.ReadGCStats(&after)
	if after.NumGC == before.NumGC {
		t.Error("64 MB of garbage in a rest are not collected")
	}
	getUp()
	if p, l := debug.SetGCPercent(77), debug.SetMemoryLimit(-1); p != 77 || l != limit {
		t.Errorf("after the rest the collector has %d%% and %d", p, l)
	}
}

var garbage []byte
