package server

import (
	"context"
	"crypto/sha256"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/audit"
	"smime-agent/server-stub/compile"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/report"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

// Sync takes in what is on the device and says what is to be there. A report
// that is the same as the last one touches no disk.
func (s *Server) Sync(ctx context.Context, req *controlv1.SyncRequest) (*controlv1.SyncResponse, error) {
	if err := malformed(report.Bounded(req)); err != nil {
		return nil, err
	}
	if _, err := factsOf(req.GetFacts()); err != nil {
		return nil, err
	}
	id, now := deviceOf(ctx), s.now()
	m, err := s.member(id)
	if err != nil {
		return nil, err
	}
	had, rebuild, partners := req.GetPolicyRevision(), req.GetRebuild(), req.GetPartnersDigest()
	req.PolicyRevision, req.Rebuild, req.PartnersDigest = "", false, ""
	if err := s.takeReport(ctx, id, m, req, now); err != nil {
		return nil, err
	}
	resp := &controlv1.SyncResponse{ServerTime: timestamppb.New(now)}
	if err := s.addPolicy(resp, m, req, had); err != nil {
		return nil, err
	}
	s.addPartners(resp, partners)
	if err := s.addNews(resp, id, m, req, rebuild); err != nil {
		return nil, err
	}
	m.markSent(resp.GetOrders())
	busy := len(resp.GetReady())+len(resp.GetOrders()) > 0 || report.UnderWay(req)
	next := s.nextSync(id, now, busy)
	resp.NextSync = durationpb.New(next)
	m.mu.Lock()
	m.next = now.Add(next)
	m.mu.Unlock()
	return resp, nil
}

// addNews says what waits for the device, and what is asked of it. Most of the
// time that is little, and named beforehand.
func (s *Server) addNews(resp *controlv1.SyncResponse, id string, m *member, req *controlv1.SyncRequest, rebuild bool) error {
	settled := m.isSettled()
	read := func(tx store.Tx) (err error) {
		resp.Ready = readyOf(tx, id)
		resp.Orders = orders.List(tx, id, resp.GetServerTime().AsTime())
		if rebuild {
			resp.Known = s.knownOf(tx, id)
		}
		if !settled {
			resp.Publish, err = s.missing(tx, id, m, req)
		}
		return err
	}
	if rebuild || !settled {
		return s.store.View(read)
	}
	device := []byte(id)
	return store.Glance(s.store, nil, []store.Group{{Bucket: store.Ready, Prefix: device}, {Bucket: store.Orders, Prefix: device}}, read)
}

// takeReport files the report if it is not the one that is filed.
func (s *Server) takeReport(ctx context.Context, id string, m *member, req *controlv1.SyncRequest, now time.Time) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(data)
	m.mu.Lock()
	same, asked := m.hash == hash, m.asked.After(m.last)
	m.last = now
	m.mu.Unlock()
	if asked { // whoever asked waits, here or at another server
		defer s.fleet.wake(id)
		defer func() { _ = s.pass(ctx, word{Kind: wordCalled, Device: id, At: now}) }() // else they hear of it later
	}
	if same {
		return nil
	}
	var lines [][]any
	// Whoever gives up has changed what is filed all the same, and that has its audit line.
	err = s.store.Update(context.WithoutCancel(ctx), func(tx store.Tx) (err error) {
		lines, err = fileReport(tx, id, req, data, now)
		return err
	})
	if err != nil {
		return err
	}
	s.noteCredentials(ctx, lines)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hash, m.report, m.written, m.revision = hash, req, now, ""
	m.filed++
	s.desk.Poke() // what is proved may be published
	return nil
}

// fileReport keeps the report, and the inventory true when a machine was renamed or
// updated. It gives the audit lines of what is believed otherwise than before.
func fileReport(tx store.Tx, id string, req *controlv1.SyncRequest, data []byte, now time.Time) (lines [][]any, err error) {
	store.Prefetch(tx, store.Ref{Bucket: store.Devices, Key: []byte(id)}, store.Ref{Bucket: store.Statuses, Key: []byte(id)})
	var device store.Device
	found, err := store.GetJSON(tx, store.Devices, []byte(id), &device)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, judgeState(store.Removed)
	}
	before, _, _ := ledger.DecodeStatus(tx.Get(store.Statuses, []byte(id))) // one that is damaged is made good here
	fresh := device
	if facts := req.GetFacts(); facts != nil {
		fresh.Hostname, fresh.OS, fresh.OSVersion = facts.GetHostname(), facts.GetOs(), facts.GetOsVersion()
		fresh.AgentVersion = facts.GetAgentVersion()
	}
	if fresh.Hostname != device.Hostname || fresh.OS != device.OS ||
		fresh.OSVersion != device.OSVersion || fresh.AgentVersion != device.AgentVersion {
		if err := store.PutJSON(tx, store.Devices, []byte(id), fresh); err != nil {
			return nil, err
		}
	}
	if err := roster.PutReport(tx, fresh, data, now); err != nil {
		return nil, err
	}
	return audit.Credentials(before, req), orders.EndProved(tx, id, req)
}

func (s *Server) addPolicy(resp *controlv1.SyncResponse, m *member, req *controlv1.SyncRequest, had string) error {
	m.mu.Lock()
	revision, err := s.revision(m)
	m.mu.Unlock()
	if err != nil || revision == "" {
		return err // no policy yet: what the device has stays in force
	}
	resp.PolicyRevision = revision
	if revision == had {
		return nil
	}
	resp.Policy = s.compile(s.current.Load().policy, req.GetUsers())
	resp.PolicyChanged = true
	// Between the two looks another policy may have come into force.
	resp.PolicyRevision, err = compile.Revision(resp.GetPolicy())
	return err
}

func (s *Server) nextSync(id string, now time.Time, busy bool) time.Duration {
	if busy {
		return report.NextSync(id, now, min(s.settings.SyncInterval, s.settings.PendingInterval))
	}
	return report.NextSync(id, now, s.settings.SyncInterval)
}

func (m *member) markSent(orders []*controlv1.Order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.sent)
	for _, order := range orders {
		m.sent[order.GetId()] = true
	}
}
