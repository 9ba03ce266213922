package service

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
)

// The events of the service itself; docs/audit.md explains each.
const (
	eventStarted          enroll.EventCode = "service-started"
	eventStopped          enroll.EventCode = "service-stopped"
	eventJoined           enroll.EventCode = "device-joined"
	eventJoinRefused      enroll.EventCode = "device-join-refused"
	eventTokenTaken       enroll.EventCode = "join-token-taken"
	eventIdentityRenewed  enroll.EventCode = "identity-renewed"
	eventPolicyChanged    enroll.EventCode = "policy-changed"
	eventAnchorTrusted    enroll.EventCode = "anchor-trusted"
	eventSettingsChanged  enroll.EventCode = "settings-changed"
	eventSettingsRejected enroll.EventCode = "settings-rejected"
	eventRecordDamaged    enroll.EventCode = "record-damaged"
	eventRecordRebuilt    enroll.EventCode = "record-rebuilt"
	eventHelperAttached   enroll.EventCode = "helper-attached"
	eventHelperDetached   enroll.EventCode = "helper-detached"
)

// auditLine is one line of audit.log; docs/audit.md explains the fields. They
// are flat and their names never change: SIEM rules are built on them.
type auditLine struct {
	Time       string `json:"time"`
	ID         string `json:"event_id"`
	Event      string `json:"event"`
	Outcome    string `json:"outcome"`
	Severity   string `json:"severity"`
	Product    string `json:"product"`
	Version    string `json:"version"`
	Host       string `json:"host,omitempty"`
	Device     string `json:"device_id,omitempty"`
	User       string `json:"user,omitempty"`
	Mailbox    string `json:"mailbox,omitempty"`
	Enrollment string `json:"enrollment,omitempty"`
	Profile    string `json:"profile,omitempty"`
	Store      string `json:"store,omitempty"`
	State      string `json:"state,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Serial     string `json:"serial,omitempty"`
	NotAfter   string `json:"not_after,omitempty"`
	Protection string `json:"protection,omitempty"`
	Code       string `json:"code,omitempty"`
	Detail     string `json:"detail,omitempty"`
	Dropped    uint64 `json:"dropped,omitempty"`
	Sequence   uint64 `json:"sequence,omitempty"`
}

// outboxLimit is how many events wait for central management at most.
const outboxLimit = 10_000

// reportBatch is how many of them are handed in at once.
const reportBatch = 100

// auditTrail writes each event to audit.log and to the outbox for central
// management. An enrollment's events are on record with the change that they
// tell of ([ledger]); for those of the service itself nobody waits. The lines of
// audit.log follow, written by one goroutine; after a crash the next start writes
// those that are missing. A line that cannot be written is an error in the log,
// never a reason to stop work.
type auditTrail struct {
	out     io.Writer
	record  *state.DB
	version string
	host    string
	device  func() string
	log     *slog.Logger

	mu      sync.Mutex
	queue   []filed
	more    chan struct{}
	done    chan struct{}
	dropped uint64
	// torn says that the log does not end with the end of a line.
	torn bool
}

// filed is an event whose line is to be written; kept says that it is in the
// outbox already.
type filed struct {
	state.AuditEvent
	kept bool
}

func newAuditTrail(s *Service) *auditTrail {
	a := &auditTrail{
		out: s.logs.audit, record: s.record, version: s.options.Version, host: s.machine.Hostname, device: s.deviceID, log: s.log,
		more: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if dropped, err := s.record.Dropped(); err == nil {
		a.dropped = dropped
	}
	if end, err := tail(s.logs.audit.Filename, 1); err == nil && len(end) == 1 {
		a.torn = end[0] != '\n'
	}
	a.enqueue(a.missed(s.logs.audit.Filename), true)
	go a.write()
	return a
}

// named gives events their IDs, which sort by age.
func named(events []enroll.Event) ([]state.AuditEvent, error) {
	all := make([]state.AuditEvent, 0, len(events))
	for _, e := range events {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("name audit event %s: %w", e.Code, err)
		}
		all = append(all, state.AuditEvent{ID: id.String(), Event: e})
	}
	return all, nil
}

// file takes an event of the service itself; it never blocks for long.
func (a *auditTrail) file(e enroll.Event) {
	events, err := named([]enroll.Event{e})
	if err != nil {
		a.log.Error("audit event not named", "event", string(e.Code), "error", err)
		return
	}
	a.enqueue(events, false)
}

// enqueue has the events' lines written, and the events put into the outbox if
// they are not kept there already.
func (a *auditTrail) enqueue(events []state.AuditEvent, kept bool) {
	if len(events) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range events {
		a.queue = append(a.queue, filed{e, kept})
	}
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// close writes what is queued.
func (a *auditTrail) close() {
	close(a.more)
	<-a.done
}

func (a *auditTrail) write() {
	defer close(a.done)
	for range a.more {
		a.flush()
	}
	a.flush()
}

func (a *auditTrail) flush() {
	a.mu.Lock()
	queue := a.queue
	a.queue = nil
	a.mu.Unlock()
	if len(queue) == 0 {
		return
	}
	a.keep(queue)
	var lost uint64
	if dropped, err := a.record.Dropped(); err == nil {
		lost, a.dropped = dropped-a.dropped, dropped
	}
	for i, e := range queue {
		line := a.line(e.Event)
		if line.ID, line.Sequence = e.ID, e.Sequence; i == 0 {
			line.Dropped = lost
		}
		if err := a.writeLine(line); err != nil {
			a.log.Error("audit event not written", "event", line.Event, "error", err)
		}
	}
}

// writeLine begins a line of its own even where a full disk or a loss of power
// left half of the one before.
func (a *auditTrail) writeLine(l auditLine) error {
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	if a.torn {
		raw = append([]byte{'\n'}, raw...)
	}
	n, err := a.out.Write(raw)
	a.torn = err != nil && (a.torn || n > 0)
	return err
}

// keep puts into the outbox what is not there yet.
func (a *auditTrail) keep(queue []filed) {
	var events []state.AuditEvent
	for _, e := range queue {
		if !e.kept {
			events = append(events, e.AuditEvent)
		}
	}
	if len(events) == 0 {
		return
	}
	if err := a.record.Save(nil, events...); err != nil {
		a.log.Error("audit events not kept for central management", "count", len(events), "error", err)
		return
	}
	for i := range queue { // whose line has no sequence is not on record
		if !queue[i].kept {
			queue[i].AuditEvent, events = events[0], events[1:]
		}
	}
}

// event files an event of the service itself.
func (s *Service) event(code enroll.EventCode, outcome string, fields ...string) {
	e := enroll.Event{At: s.now(), Code: code, Outcome: outcome}
	for i := 0; i+1 < len(fields); i += 2 {
		if e.Fields == nil {
			e.Fields = map[string]string{}
		}
		e.Fields[fields[i]] = fields[i+1]
	}
	s.audit.file(e)
}

func (s *Service) deviceID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joined.DeviceID
}

func (a *auditTrail) line(e enroll.Event) auditLine {
	n := e.Enrollment
	l := auditLine{
		Time: e.At.UTC().Format(time.RFC3339Nano), Event: string(e.Code), Outcome: e.Outcome, Severity: "info",
		Product: "smime-agent", Version: a.version, Host: a.host, Device: a.device(),
		User: n.Assignment.User, Mailbox: n.Mailbox(), Enrollment: string(n.ID), Profile: n.Assignment.Profile.Name,
		Store: n.Store, State: string(n.State), Reason: string(n.Reason), Protection: n.Protection,
		Serial: enroll.SerialOf(n), Code: e.Fields["code"], Detail: e.Fields["detail"],
	}
	if e.Code == enroll.EventRevoked {
		l.Detail = "reason " + e.Fields["reason"] + ", revoked at " + e.Fields["revoked_at"]
	}
	if user := e.Fields["user"]; user != "" {
		l.User = user
	}
	if !n.NotAfter.IsZero() {
		l.NotAfter = n.NotAfter.UTC().Format(time.RFC3339)
	}
	if e.Outcome == outcomeFailure {
		l.Severity = "error"
		if n.Problem != nil && l.Code == "" {
			l.Code, l.Detail = string(n.Problem.Code), n.Problem.Hint
		}
		if n.Problem != nil && n.Problem.Kind == enroll.Waiting {
			l.Severity = "warning"
		}
	}
	return l
}

const (
	outcomeSuccess = "success"
	outcomeFailure = "failure"
)
