package platform

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/windows/svc/eventlog"
)

// eventLog writes to the Application log.
type eventLog struct{ log *eventlog.Log }

func openSystemLog(name string) (SystemLog, error) {
	l, err := eventlog.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the event log: %w", denied(err))
	}
	return eventLog{l}, nil
}

// Numbers of our events; see registerEvents for their range.
const (
	eventInfo    = 100
	eventWarning = 200
	eventError   = 300
)

// maxEvent is what ReportEventW takes of one text, in UTF-16 units.
const maxEvent = 31839

func (l eventLog) Write(level slog.Level, text string) error {
	if len(text) > maxEvent { // bytes are never fewer than units
		text = text[:maxEvent]
	}
	text = plain(text)
	switch {
	case level >= slog.LevelError:
		return l.log.Error(eventError, text)
	case level >= slog.LevelWarn:
		return l.log.Warning(eventWarning, text)
	}
	return l.log.Info(eventInfo, text)
}

func (l eventLog) Close() error { return l.log.Close() }
