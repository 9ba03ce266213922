package server

import (
	"context"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/store"
)

const (
	maxAwait      = time.Minute
	maxReferences = 64
)

// Await holds the call until something that concerns the device is new, at most
// a minute.
func (s *Server) Await(ctx context.Context, req *controlv1.AwaitRequest) (*controlv1.AwaitResponse, error) {
	if len(req.GetReferences()) > maxReferences {
		return nil, refuse(controlv1.Reason_REASON_MALFORMED, "More than %d references are awaited.", maxReferences)
	}
	wait := maxAwait
	if d := req.GetMaxWait(); d != nil {
		wait = min(maxAwait, max(d.AsDuration(), 0))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	s.held.Add(1)
	defer s.held.Add(-1)
	id := deviceOf(ctx)
	for {
		// The channel is taken before the look, so that no change falls between.
		changed := s.fleet.wait(id)
		resp, err := s.news(id, req)
		if err != nil || resp.GetSync() || len(resp.GetReady()) > 0 {
			return resp, err
		}
		select {
		case <-changed:
			if err := s.refresh(id); err != nil {
				return nil, err
			}
			if err := s.admitted(id); err != nil {
				return nil, err
			}
		case <-timer.C:
			return &controlv1.AwaitResponse{}, nil
		case <-s.quit:
			return &controlv1.AwaitResponse{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Server) news(id string, req *controlv1.AwaitRequest) (*controlv1.AwaitResponse, error) {
	m, err := s.member(id)
	if err != nil {
		return nil, err
	}
	resp := &controlv1.AwaitResponse{}
	m.mu.Lock()
	revision, err := s.revision(m)
	asked := m.asked.After(m.last)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	resp.Sync = asked || revision != "" && revision != req.GetPolicyRevision()
	err = s.store.View(func(tx store.Tx) error {
		for _, order := range orders.List(tx, id, s.now()) {
			// An order that an answer carried already is not new: else the call would
			// come back at once for as long as the agent is at it.
			resp.Sync = resp.GetSync() || !m.wasSent(order.GetId())
		}
		for _, reference := range req.GetReferences() {
			if settled(tx, id, reference) {
				resp.Ready = append(resp.Ready, reference)
			}
		}
		return nil
	})
	return resp, err
}

func (m *member) wasSent(order string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent[order]
}

// settled says that Collect would answer with a certificate, a refusal or an error.
func settled(tx store.Tx, device, reference string) bool {
	serial, err := ca.ParseSerial(reference)
	if err != nil {
		return true
	}
	request, err := ledger.RequestOf(tx, serial)
	return err != nil || request == nil || request.Device != device ||
		request.State != store.RequestPending && request.State != store.RequestChallenge && request.State != store.RequestForwarded
}
