package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
)

// trailIn makes the parts of a service that a trail needs, in a folder where
// there may be a record and a log already.
func trailIn(t *testing.T, dir string) (*auditTrail, *logs) {
	t.Helper()
	s := recordIn(t, dir)
	return s.audit, s.logs
}

func recordIn(t *testing.T, dir string) *Service {
	t.Helper()
	l, err := openLogs(dir, 1, 3, slog.LevelInfo, nil)
	if err != nil {
		t.Fatal(err)
	}
	record, _, err := state.Open(filepath.Join(dir, "agent.db"), state.Options{Now: time.Now, OutboxLimit: outboxLimit})
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{log: slog.New(slog.DiscardHandler), logs: l, record: record}
	s.audit = newAuditTrail(s)
	return s
}

func (s *Service) leave(t *testing.T) {
	t.Helper()
	s.audit.close()
	if err := errors.Join(s.record.Close(), s.logs.close()); err != nil {
		t.Fatal(err)
	}
}

func happened(code enroll.EventCode) enroll.Event {
	return enroll.Event{At: time.Now(), Code: code, Outcome: outcomeSuccess, Enrollment: enroll.Enrollment{ID: "smime-e-1"}}
}

// logged are the events of audit.log and of those before it, in order.
func logged(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "audit-*.log"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var events []string
	for _, path := range append(files, filepath.Join(dir, "audit.log")) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(raw) {
			var l auditLine
			if err := json.Unmarshal(line, &l); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			events = append(events, l.Event)
		}
	}
	return events
}

// TestLinesFollowTheRecord: a service that died between a transaction and its
// line writes the line when it starts again, and no other one twice, not even
// where the log was rotated in between.
func TestLinesFollowTheRecord(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		dir := t.TempDir()
		trail, l := trailIn(t, dir)
		e := enroll.Enrollment{ID: "smime-e-1", State: enroll.Requested}
		if err := (ledger{trail}).Save([]enroll.Enrollment{e}, []enroll.Event{happened(enroll.EventKey), happened(enroll.EventSubmitted)}); err != nil {
			t.Fatal(err)
		}
		trail.file(happened(eventPolicyChanged))
		trail.close()
		if rotated {
			if err := l.audit.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		// What a kill leaves: the transaction, and no line.
		died, err := named([]enroll.Event{happened(enroll.EventIssued)})
		if err == nil {
			err = trail.record.Save([]enroll.Enrollment{e}, died...)
		}
		if err := errors.Join(err, trail.record.Close(), l.close()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second start finds nothing missing
			trail, l = trailIn(t, dir)
			trail.close()
			if err := errors.Join(trail.record.Close(), l.close()); err != nil {
				t.Fatal(err)
			}
		}
		want := "key-created request-submitted policy-changed certificate-issued"
		if got := strings.Join(logged(t, dir), " "); got != want {
			t.Errorf("rotated %v: %s", rotated, got)
		}
	}
}

// TestNothingIsToldOfAChangeThatFailed: what could not be saved did not happen;
// what happened without a change is in the log although the record failed.
func TestNothingIsToldOfAChangeThatFailed(t *testing.T) {
	dir := t.TempDir()
	trail, l := trailIn(t, dir)
	t.Cleanup(func() { _ = l.close() })
	if err := trail.record.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (ledger{trail}).Save([]enroll.Enrollment{{ID: "smime-e-1"}}, []enroll.Event{happened(enroll.EventKey)}); err == nil {
		t.Error("a closed record saved")
	}
	if err := (ledger{trail}).Save(nil, []enroll.Event{happened(enroll.EventDiscarded)}); err == nil {
		t.Error("a closed record saved")
	}
	trail.close()
	if got := strings.Join(logged(t, dir), " "); got != "orphan-key-removed" {
		t.Errorf("told: %s", got)
	}
}

// TestOlderCopyIsNoticed puts copies of the record back (case F8): the log tells
// of more than an older one knows; the present one and that of a machine
// without a log are believed, and so is what was lost and rebuilt.
func TestOlderCopyIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.db")
	var copies [][]byte
	for _, state := range []enroll.State{"", enroll.Wanted, enroll.Requested, enroll.Issued} {
		s := recordIn(t, dir)
		if state != "" {
			e := enroll.Enrollment{ID: "smime-e-1", State: state}
			if err := (ledger{s.audit}).Save([]enroll.Enrollment{e}, []enroll.Event{{At: time.Now(), Code: enroll.EventKey, Enrollment: e}}); err != nil {
				t.Fatal(err)
			}
		}
		s.leave(t)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, raw)
	}
	behind := func(raw []byte) string {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s := recordIn(t, dir)
		defer s.leave(t)
		return s.behind(state.Opened{}, s.lastTold())
	}
	for i, raw := range copies {
		if older := i < len(copies)-1; (behind(raw) != "") != older {
			t.Errorf("copy %d: %q", i, behind(raw))
		}
	}
	// Once told of, it is the record, until another one is put back.
	if behind(copies[1]) == "" {
		t.Error("not noticed again")
	}
	s := recordIn(t, dir)
	s.noteDoubt(true, s.lastTold())
	s.event(eventRecordDamaged, outcomeFailure)
	s.leave(t)
	s = recordIn(t, dir)
	why := s.behind(state.Opened{}, s.lastTold())
	s.leave(t)
	if why != "" || behind(copies[3]) == "" {
		t.Errorf("after it was told of: %q; another one: %q", why, behind(copies[3]))
	}
	if err := os.Remove(filepath.Join(dir, "audit.log")); err != nil {
		t.Fatal(err)
	}
	if why = behind(copies[1]); why != "" {
		t.Errorf("without a log: %s", why)
	}
}

// TestHalfALine: a line of which a loss of power left a part is written again,
// as a line of its own.
func TestHalfALine(t *testing.T) {
	for name, left := range map[string]func([]byte) []byte{
		"half":            func(line []byte) []byte { return line[:len(line)/2] },
		"without its end": func(line []byte) []byte { return line[:len(line)-1] },
		"zeros":           func(line []byte) []byte { return make([]byte, len(line)) },
		"its end lost":    func(line []byte) []byte { return append(line[:len(line)/2:len(line)/2], make([]byte, len(line)/2)...) },
	} {
		dir := t.TempDir()
		trail, l := trailIn(t, dir)
		e := enroll.Enrollment{ID: "smime-e-1", State: enroll.Requested}
		if err := (ledger{trail}).Save([]enroll.Enrollment{e}, []enroll.Event{happened(enroll.EventKey), happened(enroll.EventSubmitted)}); err != nil {
			t.Fatal(err)
		}
		trail.close()
		if err := errors.Join(trail.record.Close(), l.close()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "audit.log")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		first := bytes.IndexByte(raw, '\n') + 1
		spoiled := append(raw[:first:first], left(raw[first:])...)
		if err := os.WriteFile(path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		trail, l = trailIn(t, dir)
		trail.file(happened(eventPolicyChanged))
		trail.close()
		if err := errors.Join(trail.record.Close(), l.close()); err != nil {
			t.Fatal(err)
		}
		if raw, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		var events []string
		for line := range bytes.Lines(raw) {
			var told auditLine
			if json.Unmarshal(line, &told) == nil {
				events = append(events, told.Event)
			}
		}
		if want := []string{string(enroll.EventKey), string(enroll.EventSubmitted), string(eventPolicyChanged)}; !slices.Equal(events, want) {
			t.Errorf("%s: %v, want %v\n%q", name, events, want, raw)
		}
	}
}
