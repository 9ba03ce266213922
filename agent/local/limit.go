package local

import (
	"sync"
	"time"
)

// Limits bound what one user can take from the others. The zero value of a field
// means its default.
type Limits struct {
	// Connections per user; further ones are closed at once. Default 64.
	Connections int
	// Streams per connection at a time. Default 16.
	Streams uint32
	// Calls of one user at a time, open streams included. Default 64.
	Calls int
	// Rate is calls per second and user in the long run, Burst at once. Default
	// 20 and 60.
	Rate, Burst float64
	// Sessions that one user's helpers may lend at a time. Default 4.
	Sessions int
	// Frame is the largest message from a caller, in bytes. Default 1 MiB.
	Frame int
	// Handshake is how long a caller may take to the end of the HTTP/2 preface,
	// and a helper to its Hello. Default 5 s.
	Handshake time.Duration
	// Idle closes a connection without calls. Default 10 min: gRPC's timer for it
	// also wakes the service for each helper that stays, once in each such span.
	Idle time.Duration
}

func (l Limits) orDefaults() Limits {
	fill(&l.Connections, 64)
	fill(&l.Streams, 16)
	fill(&l.Calls, 64)
	fill(&l.Rate, 20)
	fill(&l.Burst, 60)
	fill(&l.Sessions, 4)
	fill(&l.Frame, 1<<20)
	fill(&l.Handshake, 5*time.Second)
	fill(&l.Idle, 10*time.Minute)
	return l
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// callers counts connections and calls by user.
type callers struct {
	limits Limits
	now    func() time.Time
	mu     sync.Mutex
	users  map[string]*usage
}

// usage is one user's; it is forgotten when nothing of it is left.
type usage struct {
	connections, calls, sessions int
	bucket                       bucket
	warned                       time.Time
}

func newCallers(l Limits, now func() time.Time) *callers {
	return &callers{limits: l, now: now, users: map[string]*usage{}}
}

// of gives a user's usage; c.mu is held.
func (c *callers) of(user string) *usage {
	u, ok := c.users[user]
	if !ok {
		u = &usage{bucket: newBucket(c.limits.Rate, c.limits.Burst, c.now())}
		c.users[user] = u
	}
	return u
}

// forget drops a user who has nothing open, whose bucket is full again and of
// whom nothing was logged lately, so that nobody gains by reconnecting; c.mu is
// held.
func (c *callers) forget(user string, u *usage) {
	if u.connections == 0 && u.calls == 0 && u.sessions == 0 && u.bucket.full(c.now()) && u.quiet(c.now()) {
		delete(c.users, user)
	}
}

func (c *callers) connect(user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.of(user)
	if u.connections >= c.limits.Connections {
		return false
	}
	u.connections++
	return true
}

// warnPause is the shortest time between two log lines on one user's flood.
const warnPause = time.Minute

// warn says whether it is time for a log line on a user; "" is for whom the
// kernel does not name.
func (c *callers) warn(user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.of(user)
	if now := c.now(); u.quiet(now) {
		u.warned = now
		return true
	}
	return false
}

// quiet says whether no log line on the user is younger than the pause.
func (u *usage) quiet(now time.Time) bool {
	return u.warned.IsZero() || now.Sub(u.warned) >= warnPause
}

func (c *callers) disconnect(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.of(user)
	u.connections--
	c.forget(user, u)
}

// allow spends one token of the user's rate.
func (c *callers) allow(user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(user).bucket.take(c.now())
}

// call takes a place for a call; done gives it back.
func (c *callers) call(user string) (done func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.of(user)
	if u.calls >= c.limits.Calls {
		return nil, false
	}
	u.calls++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		u.calls--
		c.forget(user, u)
	}, true
}

// session takes a place for a lent session; done gives it back.
func (c *callers) session(user string) (done func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.of(user)
	if u.sessions >= c.limits.Sessions {
		return nil, false
	}
	u.sessions++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		u.sessions--
		c.forget(user, u)
	}, true
}

// bucket is a token bucket. Its user guards it.
type bucket struct {
	rate, burst float64
	tokens      float64
	at          time.Time
}

func newBucket(rate, burst float64, now time.Time) bucket {
	return bucket{rate: rate, burst: burst, tokens: burst, at: now}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
	}
	b.at = now
}

func (b *bucket) take(now time.Time) bool {
	b.fill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) full(now time.Time) bool {
	b.fill(now)
	return b.tokens >= b.burst
}
