package control

import (
	"sync"
	"time"
)

// clock compares this machine's clock with the server's.
type clock struct {
	mu     sync.Mutex
	offset time.Duration // by the wall clock, as last measured
	at     time.Time     // when it was measured, with the monotonic reading
}

// Smaller differences between wall clock and monotonic clock are slewing.
const slewing = 2 * time.Second

// earliest is before every server; an answer with an earlier time is nonsense.
var earliest = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// observe takes the server's time out of an answer. It was written between sending
// and receiving. What was known stands if it can still be true, so that deadlines
// do not waver with each answer; else it was about in the middle.
func (k *clock) observe(server, sent, received time.Time) {
	if server.Before(earliest) {
		return
	}
	known := k.offsetAt(received)
	k.mu.Lock()
	defer k.mu.Unlock()
	doubt := received.Sub(sent) / 2
	k.at, k.offset = received, server.Add(doubt).Sub(received.Round(0))
	if (known - k.offset).Abs() <= doubt {
		k.offset = known
	}
}

// offsetAt is the offset at the local time now. If the wall clock advanced less
// than the monotonic clock since the measurement it was set back, and the
// difference counts. If it advanced more, the machine slept (the monotonic
// clock stands still then on Linux and macOS) or was set ahead; which of the
// two, only the next answer can tell, so the old offset stays.
func (k *clock) offsetAt(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at.IsZero() {
		return k.offset
	}
	wall := now.Round(0).Sub(k.at.Round(0))
	if back := now.Sub(k.at) - wall; back > slewing {
		return k.offset + back
	}
	return k.offset
}
