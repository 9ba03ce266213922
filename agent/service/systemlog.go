package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"smime-agent/platform"
)

// systemEvents hands what goes wrong to the machine's own log too, where
// administrators look first.
type systemEvents struct {
	log platform.SystemLog
	// pace keeps an error that comes again and again from filling that log.
	pace  *rate.Limiter
	attrs []slog.Attr
}

func newSystemEvents(log platform.SystemLog) systemEvents {
	return systemEvents{log: log, pace: rate.NewLimiter(rate.Every(time.Minute), 20)}
}

// Enabled for warnings and errors.
func (systemEvents) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

// Handle writes the message and a line for each attribute.
func (e systemEvents) Handle(_ context.Context, r slog.Record) error {
	if !e.pace.AllowN(r.Time, 1) {
		return nil
	}
	var text strings.Builder
	text.WriteString(r.Message)
	line := func(a slog.Attr) bool {
		fmt.Fprintf(&text, "\n%s: %v", a.Key, a.Value.Resolve())
		return true
	}
	for _, a := range e.attrs {
		line(a)
	}
	r.Attrs(line)
	return e.log.Write(r.Level, text.String())
}

// WithAttrs remembers what stands on every line.
func (e systemEvents) WithAttrs(attrs []slog.Attr) slog.Handler {
	e.attrs = append(slices.Clip(e.attrs), attrs...)
	return e
}

// WithGroup has no groups to show.
func (e systemEvents) WithGroup(string) slog.Handler { return e }

// manage adds what only a service has: a machine's log, and a file for the last
// words of a crash. It does without what it cannot have.
func (l *logs) manage(system platform.SystemLog, dir string) {
	if system != nil {
		l.Log = slog.New(slog.NewMultiHandler(l.Log.Handler(), newSystemEvents(system)))
	}
	if err := keepCrashes(dir); err != nil {
		l.Log.Warn("crashes are not kept", "error", err)
	}
}

// maxCrashes is the size at which the file of crashes begins anew, in bytes.
const maxCrashes = 1 << 20

// keepCrashes lets the runtime write its last words into a file: what a service
// writes to its standard error nobody sees everywhere.
func keepCrashes(dir string) error {
	path := filepath.Join(dir, "crash.log")
	if info, err := os.Lstat(path); err == nil && info.Size() > maxCrashes {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := regular(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()) // the runtime has a copy
}
