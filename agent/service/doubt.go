package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"smime-agent/agent/state"
	"smime-agent/agent/status"
)

// doubts says that the record is not to be believed before it was compared with
// what central management knows: it was damaged, it is gone, or an older copy of
// it was put back. It raises the conditions and tells of it.
func (s *Service) doubts(opened state.Opened) bool {
	told := s.lastTold()
	cause, detail := opened.Cause, "The damaged file was kept as "+opened.SetAside+"."
	if !opened.Damaged {
		cause = s.behind(opened, told)
		detail = "The audit log on this computer tells of more than the record holds."
	}
	s.rebuilding = cause != "" || opened.Doubted
	if s.rebuilding {
		s.wrong.raise(status.RecordRebuilding, "")
		s.noteDoubt(true, told)
	}
	if cause != "" {
		s.log.Error("record cannot be believed", "cause", cause, "set_aside", opened.SetAside,
			"salvaged", opened.Salvaged, "missing", opened.Missing)
		s.wrong.raise(status.RecordDamaged, detail)
		s.event(eventRecordDamaged, outcomeFailure, "detail", cause)
	}
	return s.rebuilding
}

// rebuilt ends the doubts.
func (s *Service) rebuilt() {
	s.mu.Lock()
	was := s.rebuilding
	s.rebuilding = false
	s.mu.Unlock()
	if was {
		s.wrong.clear(status.RecordDamaged, status.RecordRebuilding)
		s.noteDoubt(false, 0)
		s.event(eventRecordRebuilt, outcomeSuccess)
	}
}

// noteDoubt keeps the doubt over a restart; without it less would be compared
// then, and nothing lost.
func (s *Service) noteDoubt(doubted bool, told uint64) {
	if err := s.record.Doubt(doubted, told); err != nil {
		s.log.Error("doubt not kept on record", "doubted", doubted, "error", err)
	}
}

// behind says why the record is not the one that this machine's audit log tells
// of: a line is only written after what it tells of is on the disk, so a record
// with fewer transactions is an older copy, or stands for one that is gone.
func (s *Service) behind(opened state.Opened, told uint64) string {
	have, err := s.record.Generation()
	switch {
	case err != nil || have >= told: // a record that cannot be read stops the engine
		return ""
	case opened.Created:
		return "the record is gone"
	}
	return fmt.Sprintf("an older copy of the record was put back: it ends with transaction %d, the log with %d", have, told)
}

// lastTold is the last transaction that the audit log tells of.
func (s *Service) lastTold() uint64 {
	lines, err := lastLines(s.logs.audit.Filename, missableBytes)
	if err != nil {
		s.log.Error("audit log not read", "error", err)
		return 0
	}
	var told uint64
	for line := range bytes.Lines(lines) {
		var l auditLine
		if json.Unmarshal(line, &l) == nil { // the first may be cut
			told = max(told, l.Sequence)
		}
	}
	return told
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
