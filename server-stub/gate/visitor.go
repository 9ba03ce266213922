package gate

import (
	"container/list"
	"net"
	"net/netip"
	"time"
)

// visitor is a connection that the door knows. During the handshake, reading from
// it gives its turn back while the peer is waited for.
type visitor struct {
	net.Conn
	door *Door
	from netip.Prefix
	// ready gets one when it is this visitor's turn.
	ready chan struct{}

	// These are the door's, under its lock.
	since   time.Time // it came, or was let in
	place   *list.Element
	queued  *list.Element
	asked   time.Time     // since when the peer is waited for; zero: it is not
	waited  time.Duration // for the peer, before that
	turn    bool
	gone    bool
	dropped bool

	// through is written under the lock, by the one goroutine that reads and writes
	// before it is; answered is that goroutine's own.
	through  bool
	answered bool
}

// Read waits for the peer, and then for a turn.
func (v *visitor) Read(p []byte) (int, error) {
	if v.through {
		return v.Conn.Read(p)
	}
	v.door.pause(v)
	n, err := v.Conn.Read(p)
	if !v.door.proceed(v, err == nil) {
		return n, errGone
	}
	return n, err
}

// Write sends; whoever has sent its part of the handshake is nearly through.
func (v *visitor) Write(p []byte) (int, error) {
	if !v.through {
		v.answered = true
	}
	return v.Conn.Write(p)
}

// reset closes at once: nothing waits in the kernel for a peer to agree.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it is closed in the usual way
	}
	_ = conn.Close() // nobody is left to be told
}

// idle is how long the peer was waited for. The caller holds the door's lock.
func (v *visitor) idle(now time.Time) time.Duration {
	if v.asked.IsZero() {
		return 0 // it waits for us
	}
	return v.waited + now.Sub(v.asked)
}

// pause gives v's turn back, if it has one: its peer is waited for.
func (d *Door) pause(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v.asked = time.Now()
	d.back(v)
}

// proceed waits for v's turn, if it wants one, and says whether it may go on.
func (d *Door) proceed(v *visitor, wants bool) bool {
	d.mu.Lock()
	v.waited, v.asked = v.waited+time.Since(v.asked), time.Time{}
	if v.gone || !wants {
		defer d.mu.Unlock()
		return !v.gone
	}
	if d.turns > 0 {
		d.turns--
		v.turn = true
		d.mu.Unlock()
		return true
	}
	queue := &d.starting
	if v.answered {
		queue = &d.ending
	}
	v.queued = queue.PushBack(v)
	d.mu.Unlock()
	<-v.ready
	d.mu.Lock()
	defer d.mu.Unlock()
	return !v.gone && time.Since(v.since) < HandshakeTime
}

// back hands v's turn to who is nearest to the end, or takes v out of the queue.
// The caller holds d.mu.
func (d *Door) back(v *visitor) {
	if v.queued != nil { // it was put out while it waited
		d.starting.Remove(v.queued)
		d.ending.Remove(v.queued)
		v.queued = nil
		v.ready <- struct{}{}
	}
	if !v.turn {
		return
	}
	v.turn = false
	for _, queue := range []*list.List{&d.ending, &d.starting} {
		if e := queue.Front(); e != nil {
			next, _ := queue.Remove(e).(*visitor)
			next.queued, next.turn = nil, true
			next.ready <- struct{}{}
			return
		}
	}
	d.turns++
}
