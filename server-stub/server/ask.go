package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
)

// AskDevice wants a fresh report of a device, and waits for it. A device that
// holds a call is told at once; any other is heard at its next poll, since
// nobody can call it.
func (a *admin) AskDevice(ctx context.Context, req *controlv1.AskDeviceRequest) (*controlv1.AskDeviceResponse, error) {
	id := req.GetDeviceId()
	if err := a.refresh(id); err != nil {
		return nil, err
	}
	m, err := a.member(id)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, noDevice(id)
	}
	asked := m.ask(a.now())
	if err := a.pass(ctx, word{Kind: wordAsked, Device: id, At: asked}); err != nil {
		return nil, err
	}
	a.fleet.wake(id)
	resp := &controlv1.AskDeviceResponse{Reported: a.heard(ctx, id, m, asked, req.GetWait().AsDuration())}
	if !resp.GetReported() {
		m.mu.Lock()
		if m.next.After(asked) {
			resp.Expected = timestamppb.New(m.next)
		}
		m.mu.Unlock()
	}
	resp.Device, err = a.GetDevice(ctx, &controlv1.GetDeviceRequest{Id: id})
	return resp, err
}

// heard waits until the device has called since, at most a minute.
func (a *admin) heard(ctx context.Context, id string, m *member, since time.Time, wait time.Duration) bool {
	timer := time.NewTimer(min(max(wait, 0), maxAwait))
	defer timer.Stop()
	for {
		changed := a.fleet.wait(id)
		m.mu.Lock()
		// Less than, since both may fall into one tick of a coarse clock.
		called := !m.last.Before(since)
		m.mu.Unlock()
		if called {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-a.quit:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
