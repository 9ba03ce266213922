package site

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"smime-agent/server-stub/gate"
)

// auditFile appends lines to a file, and opens it anew when somebody has renamed it.
type auditFile struct {
	path string

	mu   sync.Mutex
	file *os.File
	// which file it is that is open.
	which os.FileInfo
}

const auditMode = 0o600

// Write appends a line as a whole.
func (a *auditFile) Write(line []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		here, err := os.Stat(a.path)
		if err != nil || !os.SameFile(here, a.which) {
			_ = a.file.Close() // all lines are in it
			a.file = nil
		}
	}
	if a.file == nil {
		file, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, auditMode)
		if err != nil {
			return 0, err
		}
		if a.which, err = file.Stat(); err != nil {
			return 0, errors.Join(err, file.Close())
		}
		a.file = file
	}
	return a.file.Write(line)
}

// Close closes the file; a later line opens it again.
func (a *auditFile) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	err := errors.Join(a.file.Sync(), a.file.Close())
	a.file = nil
	return err
}

func auditLog(to io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(to, nil)) }

// insiders is how many connections administrators' HTTP listeners may have.
const insiders = 128

// lobby bounds the connections of one of the HTTP listeners.
func (s *Site) lobby(name string, places int, log *slog.Logger) *gate.Lobby {
	return gate.NewLobby(places, func(r gate.Result) { s.figures.Web(name, string(r)) }, log.With("listener", name))
}

// watch serves figures and health.
func (s *Site) watch(ctx context.Context, address string, o Options) error {
	if err := s.figures.Watch(s.Server); err != nil {
		return err
	}
	if address == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	s.MetricsAddr = l.Addr().String()
	s.metrics = &http.Server{
		Handler: s.figures.Handler(s.Server, o.Command, o.Now, o.Log), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	l = s.lobby("metrics", insiders, o.Log).Guard(s.metrics, l)
	s.serving.Go(func() {
		if err := s.metrics.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	return nil
}
