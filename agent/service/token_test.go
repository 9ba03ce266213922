package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	controlv1 "smime-agent/proto/control/v1"
)

// installer is what an installer left, taken as platform.TakeHandover does.
type installer struct {
	mu   sync.Mutex
	left string
}

func (i *installer) take(keep func(platform.Handover) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.left == "" {
		return platform.ErrNotFound
	}
	if err := keep(platform.Handover{Text: i.left, Exposed: true}); err != nil {
		return err
	}
	i.left = ""
	return nil
}

func (i *installer) leave(text string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.left = text
}

func (i *installer) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.left == ""
}

// TestHandedToken: a token that an installer left is taken, survives a restart
// while central management cannot be reached, joins the machine, and is gone.
func TestHandedToken(t *testing.T) {
	b, ctx := prepareBench(t, "silent")
	token, err := b.server.Token(ctx, &controlv1.CreateTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	from := &installer{left: token}
	b.handover = from.take
	b.write("ca.pem", string(b.server.CAPEM))
	b.write("config.yaml", b.places()) // no way to central management yet
	first, end := context.WithCancel(ctx)
	b.stop = end
	b.start(first)
	b.await("word of missing settings", shows(status.Unconfigured, "server"))
	end()
	if err := <-b.ended; err != nil {
		t.Fatal(err)
	}
	b.ended <- nil
	if !from.empty() {
		t.Error("the token still lies where the installer left it")
	}

	again := &bench{t: t, dir: b.dir, server: b.server, store: b.store, prompter: b.prompter, ended: make(chan error, 1), handover: from.take}
	ctx, again.stop = context.WithCancel(t.Context())
	again.write("config.yaml", again.places()+"server: "+again.server.Addr+"\nserver_ca: "+filepath.Join(again.dir, "ca.pem")+"\n")
	again.start(ctx)
	again.await("an active credential", inState(enroll.Active))
	again.tokenIsGone(token)

	// One that comes when it is not needed any more is taken too, and not kept.
	from.leave("join-LATELATELATELATELATELATE")
	if err := again.client.Sync(ctx); err != nil {
		t.Error(err)
	}
	again.tokenIsGone("join-LATELATELATELATELATELATE")
	if !from.empty() {
		t.Error("a token that is not needed was left lying")
	}
}

func (b *bench) tokenIsGone(token string) {
	b.t.Helper()
	secrets, err := platform.Secrets(filepath.Join(b.dir, "state"))
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := secrets.Get(b.t.Context(), handedToken); !errors.Is(err, platform.ErrNotFound) {
		b.t.Errorf("the token was not forgotten: %v", err)
	}
	err = filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), token) {
			b.t.Errorf("the token is in %s", path)
		}
		return nil
	})
	if err != nil {
		b.t.Error(err)
	}
}
