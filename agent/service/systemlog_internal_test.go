package service

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// machineLog is the system's log in memory.
type machineLog struct {
	levels []slog.Level
	texts  []string
}

func (m *machineLog) Write(level slog.Level, text string) error {
	m.levels, m.texts = append(m.levels, level), append(m.texts, text)
	return nil
}
func (*machineLog) Close() error { return nil }

func TestSystemEvents(t *testing.T) {
	m := &machineLog{}
	log := slog.New(newSystemEvents(m)).With("user", "alice")
	log.Info("nothing to see")
	log.Warn("store locked", "error", errors.New("no PIN"))
	if len(m.texts) != 1 || m.levels[0] != slog.LevelWarn || m.texts[0] != "store locked\nuser: alice\nerror: no PIN" {
		t.Errorf("%v %q", m.levels, m.texts)
	}
	for range 1000 {
		log.Error("again")
	}
	if n := len(m.texts); n > 30 {
		t.Errorf("a flood of %d events", n)
	}
}

func TestTell(t *testing.T) {
	m := &machineLog{}
	Options{}.tell(slog.LevelError, "not heard", nil)
	Options{system: m}.tell(slog.LevelError, "It cannot run.", errors.New("taken"))
	if len(m.texts) != 1 || !strings.Contains(m.texts[0], "taken") {
		t.Errorf("%q", m.texts)
	}
}
