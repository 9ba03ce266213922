package service

import (
	"encoding/json"
	"io"
	"log/slog"
	"sync"
	"time"

	"smime-agent/agent/enroll"
)

// The events of the service itself; docs/audit.md explains each.
const (
	eventStarted          enroll.EventCode = "service-started"
	eventStopped          enroll.EventCode = "service-stopped"
	eventJoined           enroll.EventCode = "device-joined"
	eventJoinRefused      enroll.EventCode = "device-join-refused"
	eventIdentityRenewed  enroll.EventCode = "identity-renewed"
	eventPolicyChanged    enroll.EventCode = "policy-changed"
	eventSettingsChanged  enroll.EventCode = "settings-changed"
	eventSettingsRejected enroll.EventCode = "settings-rejected"
	eventRecordDamaged    enroll.EventCode = "record-damaged"
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
}

// auditTrail writes each event to audit.log and to the outbox for central
// management. A line that cannot be written is an error in the log, never a
// reason to stop work.
type auditTrail struct {
	mu      sync.Mutex
	out     io.Writer
	outbox  func(enroll.Event) (id string, dropped uint64, err error)
	version string
	host    string
	device  func() string
	log     *slog.Logger
}

func (a *auditTrail) record(e enroll.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, dropped, err := a.outbox(e)
	if err != nil {
		a.log.Error("audit event not kept for central management", "event", e.Code, "error", err)
	}
	line := a.line(e)
	line.ID, line.Dropped = id, dropped
	raw, err := json.Marshal(line)
	if err == nil {
		_, err = a.out.Write(append(raw, '\n'))
	}
	if err != nil {
		a.log.Error("audit event not written", "event", e.Code, "error", err)
	}
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
