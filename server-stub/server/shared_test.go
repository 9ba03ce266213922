package server

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
)

// alongside is a store over which other servers could work too.
type alongside struct{ *paused }

func (alongside) Listen(ctx context.Context, _ func(string), _ func()) { <-ctx.Done() }

// TestLateLook: a call that has read the device's record before another call files
// a report here does not put the older report back.
func TestLateLook(t *testing.T) {
	p := &paused{Store: records(t)}
	s, ctx := atWork(t, Config{Store: alongside{p}})
	id := deviceOf(ctx)
	report := func(host string) *controlv1.SyncRequest {
		return &controlv1.SyncRequest{
			Facts: &controlv1.DeviceFacts{Hostname: host}, Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}},
		}
	}
	if _, err := s.Sync(ctx, report("older")); err != nil {
		t.Fatal(err)
	}
	p.pauseAfter(1, func() {
		if _, err := s.Sync(ctx, report("newer")); err != nil {
			t.Error(err)
		}
	})
	if err := s.refresh(id); err != nil {
		t.Fatal(err)
	}
	m := s.fleet.peek(id)
	m.mu.Lock()
	got, written := proto.CloneOf(m.report), m.written
	m.mu.Unlock()
	if got.GetFacts().GetHostname() != "newer" {
		t.Errorf("the report is now %v, of %v", got, written)
	}
	// What another server files is still taken over.
	m.mu.Lock()
	m.report, m.hash = &controlv1.SyncRequest{}, [32]byte{}
	m.mu.Unlock()
	if err := s.refresh(id); err != nil {
		t.Fatal(err)
	}
	if m.report.GetFacts().GetHostname() != "newer" {
		t.Errorf("another server's report is not taken over: %v", m.report)
	}
}
