package authority

import (
	"sync"
	"time"
)

// Pace remembers when each order may be asked for again, so that a CA is asked
// by one at a time and no more often than it wants. The zero value is ready.
type Pace struct {
	mu   sync.Mutex
	next map[string]time.Time
}

// Take gives the right to ask now; hold keeps others off until [Pace.Put], at the longest so long.
func (p *Pace) Take(order string, now time.Time, hold time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = map[string]time.Time{}
	}
	if now.Before(p.next[order]) {
		return false
	}
	p.next[order] = now.Add(hold)
	return true
}

// Put says when the next may ask; zero forgets an order that is settled.
func (p *Pace) Put(order string, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next[order] = next; next.IsZero() {
		delete(p.next, order)
	}
}
