package service

import (
	"sync"
	"time"

	"smime-agent/agent/enroll"
)

// condition is something that is wrong with the service as a whole.
type condition struct {
	code   enroll.Code
	detail string
	since  time.Time
}

// conditions holds what is wrong now; each code at most once.
type conditions struct {
	mu      sync.Mutex
	now     func() time.Time
	current map[enroll.Code]condition
	changed func()
}

func (c *conditions) raise(code enroll.Code, detail string) {
	now := c.now() // asked before locking: whoever tells the time has locks of his own
	c.mu.Lock()
	old, was := c.current[code]
	if was && old.detail == detail {
		c.mu.Unlock()
		return
	}
	next := condition{code: code, detail: detail, since: now}
	if was {
		next.since = old.since
	}
	if c.current == nil {
		c.current = map[enroll.Code]condition{}
	}
	c.current[code] = next
	c.mu.Unlock()
	c.changed()
}

func (c *conditions) clear(codes ...enroll.Code) {
	c.mu.Lock()
	gone := false
	for _, code := range codes {
		if _, was := c.current[code]; was {
			delete(c.current, code)
			gone = true
		}
	}
	c.mu.Unlock()
	if gone {
		c.changed()
	}
}

func (c *conditions) list() []condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]condition, 0, len(c.current))
	for _, x := range c.current {
		all = append(all, x)
	}
	return all
}
