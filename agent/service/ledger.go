package service

import (
	"bytes"
	"encoding/json"
	"slices"

	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
)

// ledger is the engine's: a change and the events that tell of it go on record
// in one transaction, and the lines of audit.log follow.
type ledger struct{ trail *auditTrail }

var _ enroll.Ledger = ledger{}

// Save is [enroll.Ledger]'s.
func (l ledger) Save(es []enroll.Enrollment, told []enroll.Event) error {
	events, err := named(told)
	if err == nil {
		err = l.trail.record.Save(es, events...)
	}
	if err != nil && len(es) > 0 {
		return err // the change is not made, so there is nothing to tell
	}
	// What comes with no change has happened, whatever became of the record.
	l.trail.enqueue(events, true)
	return err
}

// Load is [enroll.Ledger]'s.
func (l ledger) Load() ([]enroll.Enrollment, error) { return l.trail.record.Load() }

const (
	// missable is how many events may have been on record without their line when
	// the service died; lines follow within milliseconds.
	missable = 256
	// missableBytes is more than the lines of so many events.
	missableBytes = 512 << 10
)

// missed are events on record that have no line in the log, since the service
// died before it was written.
func (a *auditTrail) missed(log string) []state.AuditEvent {
	newest, err := a.record.Newest(missable)
	if err != nil || len(newest) == 0 {
		return nil // a record that cannot be read is told elsewhere
	}
	lines, err := lastLines(log, missableBytes)
	if err != nil {
		a.log.Error("audit log not read", "error", err)
		return nil
	}
	told := map[string]bool{}
	for line := range bytes.Lines(lines) { // half a line has not told of anything
		var l auditLine
		if json.Unmarshal(line, &l) == nil {
			told[l.ID] = true
		}
	}
	return slices.DeleteFunc(newest, func(e state.AuditEvent) bool { return told[e.ID] })
}
