package service

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
)

// TestNobodyWaitsForTheEngine: the engine asks for the time with its lock held,
// while whoever makes publications asks the engine, and whoever reports asks
// them all. While the engine stands still, the time is told, and what stands in
// the way of others; else each waits for the next.
func TestNobodyWaitsForTheEngine(t *testing.T) {
	s := recordIn(t, t.TempDir())
	defer s.leave(t)
	s.correspondence = &correspondence{published: map[string]state.Publication{"smime-1": {}}}
	held, gate, once := make(chan struct{}), make(chan struct{}), sync.Once{}
	s.engine = &enroll.Engine{Ledger: ledger{s.audit}, Log: slog.New(slog.DiscardHandler), Now: func() time.Time {
		once.Do(func() { close(held) })
		<-gate
		return s.now()
	}}
	if err := s.engine.Load(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { _, _ = s.engine.Renew(enroll.Filter{}, enroll.ReasonAdministrator) })
	all.Go(func() { _ = s.engine.Apply(enroll.Policy{Revision: "1"}) })
	<-held
	all.Go(func() { s.makePublications(t.Context()) })
	time.Sleep(50 * time.Millisecond) // for it to ask the engine
	s.mu.Lock()                       // as whoever reports
	for name, ask := range map[string]func(){
		"the time": func() { s.now() }, "what the correspondence lacks": func() { s.correspondence.raised() },
	} {
		done := make(chan struct{})
		go func() { ask(); close(done) }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("%s is not told", name)
		}
	}
	s.mu.Unlock()
	close(gate)
	all.Wait()
}
