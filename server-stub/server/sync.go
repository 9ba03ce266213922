package server

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/compile"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

// The bounds of one report.
const (
	maxUsers       = 64
	maxStores      = 32
	maxCredentials = 512
	maxConditions  = 128
)

// Sync takes in what is on the device and says what is to be there. A report
// that is the same as the last one touches no disk.
func (s *Server) Sync(ctx context.Context, req *controlv1.SyncRequest) (*controlv1.SyncResponse, error) {
	if err := boundedReport(req); err != nil {
		return nil, err
	}
	id, now := deviceOf(ctx), s.now()
	m, err := s.member(id)
	if err != nil {
		return nil, err
	}
	had, rebuild := req.GetPolicyRevision(), req.GetRebuild()
	req.PolicyRevision, req.Rebuild = "", false
	if err := s.takeReport(ctx, id, m, req, now); err != nil {
		return nil, err
	}
	resp := &controlv1.SyncResponse{ServerTime: timestamppb.New(now)}
	if err := s.addPolicy(resp, m, req, had); err != nil {
		return nil, err
	}
	busy := false
	err = s.store.View(func(tx store.Tx) error {
		resp.Ready = readyOf(tx, id)
		resp.Orders = orders.List(tx, id, now)
		if rebuild {
			resp.Known = s.knownOf(tx, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.markSent(resp.GetOrders())
	busy = len(resp.GetReady())+len(resp.GetOrders()) > 0 || underWay(req)
	next := s.nextSync(id, now, busy)
	resp.NextSync = durationpb.New(next)
	m.mu.Lock()
	m.next = now.Add(next)
	m.mu.Unlock()
	return resp, nil
}

func boundedReport(req *controlv1.SyncRequest) error {
	malformed := func(what string) error {
		return refuse(controlv1.Reason_REASON_MALFORMED, "The report has too many %s.", what)
	}
	switch {
	case len(req.GetUsers()) > maxUsers:
		return malformed("users")
	case len(req.GetCredentials()) > maxCredentials:
		return malformed("credentials")
	case len(req.GetConditions()) > maxConditions:
		return malformed("conditions")
	}
	seen := make([]string, 0, len(req.GetUsers()))
	for _, user := range req.GetUsers() {
		if len(user.GetStores()) > maxStores {
			return malformed("stores")
		}
		if user.GetUser() == "" || slices.Contains(seen, user.GetUser()) {
			return refuse(controlv1.Reason_REASON_MALFORMED, "A user is empty or there twice.")
		}
		seen = append(seen, user.GetUser())
		if err := boundedText(user.GetUser(), user.GetAccount(), user.GetUpn(), user.GetLocale()); err != nil {
			return err
		}
	}
	_, err := factsOf(req.GetFacts())
	return err
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
	err = s.store.Update(ctx, func(tx store.Tx) error { return fileReport(tx, id, req, data, now) })
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hash, m.report, m.written, m.revision = hash, req, now, ""
	return nil
}

// fileReport keeps the report, and the inventory true when a machine was renamed or updated.
func fileReport(tx store.Tx, id string, req *controlv1.SyncRequest, data []byte, now time.Time) error {
	var device store.Device
	found, err := store.GetJSON(tx, store.Devices, []byte(id), &device)
	if err != nil {
		return err
	}
	if !found {
		return judgeState(store.Removed)
	}
	fresh := device
	if facts := req.GetFacts(); facts != nil {
		fresh.Hostname, fresh.OS, fresh.OSVersion = facts.GetHostname(), facts.GetOs(), facts.GetOsVersion()
		fresh.AgentVersion = facts.GetAgentVersion()
	}
	if fresh.Hostname != device.Hostname || fresh.OS != device.OS ||
		fresh.OSVersion != device.OSVersion || fresh.AgentVersion != device.AgentVersion {
		if err := store.PutJSON(tx, store.Devices, []byte(id), fresh); err != nil {
			return err
		}
	}
	if err := roster.PutReport(tx, fresh, data, now); err != nil {
		return err
	}
	return orders.EndProved(tx, id, req)
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

// underWay says that the device has something that does not rest yet.
func underWay(req *controlv1.SyncRequest) bool {
	for _, c := range req.GetCredentials() {
		switch c.GetState() {
		case "active", "kept", "over":
		default:
			return true
		}
	}
	return false
}

// nextSync gives each device its own place in the interval, from its ID, so
// that a fleet that was started at once does not call at once for ever.
func (s *Server) nextSync(id string, now time.Time, busy bool) time.Duration {
	interval := s.settings.SyncInterval
	if busy {
		interval = min(interval, s.settings.PendingInterval)
	}
	return NextSync(id, now, interval)
}

// NextSync gives the wait until the device's place in the interval, or the one
// after: between half the interval and one and a half.
func NextSync(id string, now time.Time, interval time.Duration) time.Duration {
	sum := sha256.Sum256([]byte(id))
	place := time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(interval))
	into := time.Duration(now.UnixNano() % int64(interval))
	next := (place - into + interval) % interval
	if next < interval/2 {
		next += interval
	}
	return next
}

func (m *member) markSent(orders []*controlv1.Order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.sent)
	for _, order := range orders {
		m.sent[order.GetId()] = true
	}
}
