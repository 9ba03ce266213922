package helper_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/agent/local"
	"smime-agent/platform"
)

// silent is a service that only borrows sessions.
type silent struct {
	local.Agent
	attached chan local.Attachment
}

func (s silent) Attached(a local.Attachment) { s.attached <- a }
func (silent) Changed(local.Attachment)      {}
func (silent) Detached(local.Attachment)     {}

// TestSessionOverTheSocket runs the same suite at the other end of the socket.
func TestSessionOverTheSocket(t *testing.T) {
	testSession(t, func(t *testing.T, s *helper.Session) enroll.Session {
		address := filepath.Join(t.TempDir(), "agent.sock")
		listener, err := platform.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		service := silent{attached: make(chan local.Attachment, 1)}
		server := &local.Server{Agent: service, Sessions: &local.Sessions{}, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(ctx, listener) })
		wg.Go(func() { local.Dialer{Address: address}.AttachForever(ctx, local.Lending{Session: s}) })
		t.Cleanup(func() { cancel(); wg.Wait() })
		select {
		case a := <-service.attached:
			return a.Session
		case <-time.After(time.Minute):
			t.Fatal("the session was not lent")
			return nil
		}
	})
}
