package audit

import (
	"net/netip"
	"sync"
	"time"
)

// Spell is how long after a stranger's refused call others from the same source are
// only counted.
const Spell = time.Minute

// maxSources bounds how many sources are told apart in a spell. The rest counts as
// one, so that a stranger with many addresses fills neither the log nor the memory.
const maxSources = 100

// Strangers decides which refused calls of callers without an identity get a line:
// the first of each source, and one for the number of those that follow within
// [Spell]. Whoever reaches the port can make such calls without end.
type Strangers struct {
	mu     sync.Mutex
	ended  bool
	spells map[netip.Prefix]*Refusals
}

// Refusals are those of one source that got no line of their own.
type Refusals struct {
	// From is the zero value for all sources beyond those that are told apart.
	From netip.Prefix
	// Count is how many there were after Since, the time of the one that got a line,
	// the last of them at Until.
	Count        int
	Since, Until time.Time
}

// Refused takes note of a refused call, and says whether it gets a line.
func (s *Strangers) Refused(from netip.Prefix, now time.Time) (line bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return true
	}
	if s.spells == nil {
		s.spells = map[netip.Prefix]*Refusals{}
	}
	spell := s.spells[from]
	if spell == nil && len(s.spells) >= maxSources {
		from = netip.Prefix{}
		spell = s.spells[from]
	}
	if spell == nil {
		s.spells[from] = &Refusals{From: from, Since: now, Until: now}
		return true
	}
	spell.Count++
	spell.Until = now
	return false
}

// Due ends the spells that are over, and gives those in which calls were counted.
func (s *Strangers) Due(now time.Time) []Refusals {
	return s.take(func(r *Refusals) bool {
		// A clock that was set back would else keep a spell for as long. Calls at once
		// come here in any order.
		return now.Sub(r.Since).Abs() >= Spell
	})
}

// End gives what was counted. From then on every refused call gets a line, since
// nobody asks for a count anymore.
func (s *Strangers) End() []Refusals {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	return s.take(func(*Refusals) bool { return true })
}

func (s *Strangers) take(over func(*Refusals) bool) []Refusals {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Refusals
	for from, r := range s.spells {
		if !over(r) {
			continue
		}
		delete(s.spells, from)
		if r.Count > 0 {
			out = append(out, *r)
		}
	}
	return out
}
