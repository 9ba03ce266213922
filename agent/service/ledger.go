package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	return slices.DeleteFunc(newest, func(e state.AuditEvent) bool { return bytes.Contains(lines, []byte(e.ID)) })
}

// lastLines are the last bytes of a log, those of the file before it included if
// it was rotated a short while ago.
func lastLines(log string, n int64) ([]byte, error) {
	// As lumberjack names them, which sorts by time.
	rotated, err := filepath.Glob(strings.TrimSuffix(log, ".log") + "-*.log")
	if err != nil {
		return nil, err
	}
	slices.Sort(rotated)
	var all []byte
	for _, path := range append(rotated[max(0, len(rotated)-1):], log) {
		end, err := tail(path, n)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, end...)
	}
	return all, nil
}

func tail(path string, n int64) ([]byte, error) {
	if err := regular(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path) //nolint:gosec // in our own folder, and regular
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	end, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-n), n))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return end, nil
}
