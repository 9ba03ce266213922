package helper

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"smime-agent/agent/enroll"
)

// DefaultCloseLook is how often it is looked whether a mail program that is in the
// way was closed. Who closes a program and opens it again rarely does so faster.
const DefaultCloseLook = 2 * time.Second

// awaitClose keeps what a running program is in the way of, so that it is done
// as soon as the program is closed.
func (s *Session) awaitClose(w enroll.PrepareWanted, accounts []enroll.MailAccount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.awaiting { // what this one follows must not come after it
		if slices.ContainsFunc(w.Earlier, func(der []byte) bool { return bytes.Equal(der, o.Chain[0]) }) {
			delete(s.awaiting, id)
		}
	}
	busy := slices.ContainsFunc(accounts, func(a enroll.MailAccount) bool { return a.State == enroll.MailBusy })
	if !busy {
		delete(s.awaiting, w.ID)
		return
	}
	if s.awaiting == nil {
		s.awaiting = map[enroll.ID]enroll.PrepareWanted{}
	}
	s.awaiting[w.ID] = w
	select {
	case s.closing() <- struct{}{}:
	default:
	}
}

// closing wakes [Session.WatchPrograms]. Callers hold mu.
func (s *Session) closing() chan struct{} {
	if s.wakeClose == nil {
		s.wakeClose = make(chan struct{}, 1)
	}
	return s.wakeClose
}

// WatchPrograms waits for the close of programs that were in the way, does at
// once what had to wait, and calls changed. It sleeps while nothing waits, and
// ends with ctx. every is how often it looks; 0 is [DefaultCloseLook].
func (s *Session) WatchPrograms(ctx context.Context, every time.Duration, changed func()) {
	if every <= 0 {
		every = DefaultCloseLook
	}
	s.mu.Lock()
	wake := s.closing()
	s.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for s.lookForClose(ctx, changed) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
		}
	}
}

// awaited is what was asked for last, if it still waits.
func (s *Session) awaited(id enroll.ID) (enroll.PrepareWanted, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, waits := s.awaiting[id]
	return w, waits
}

// lookForClose tries what waits and says whether something still does.
func (s *Session) lookForClose(ctx context.Context, changed func()) bool {
	s.mu.Lock()
	all := maps.Clone(s.awaiting)
	s.mu.Unlock()
	for id, w := range all {
		accounts, err := s.prepare(ctx, w.Store, func() (enroll.PrepareWanted, bool) { return s.awaited(id) })
		if err == nil && slices.ContainsFunc(accounts, func(a enroll.MailAccount) bool { return a.Changed }) {
			changed()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.awaiting) > 0
}
