package server

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// TestConfirmGivenUp: a caller that gives up while its write waits is answered at
// once, and the write, which still comes, touches nothing that the answer is made
// of. (The race detector sees it.)
func TestConfirmGivenUp(t *testing.T) {
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, device := overStore(t, db)
	entered := make(chan struct{})
	go func() {
		_ = db.Update(context.Background(), func(store.Tx) error {
			close(entered)
			time.Sleep(100 * time.Millisecond) // a channel would order what must not need an order
			return nil
		})
	}()
	<-entered
	ctx, cancel := context.WithTimeout(device, time.Millisecond)
	defer cancel()
	reference := new(ca.Serials).Next(time.Now()).String()
	if _, err := s.Confirm(ctx, &controlv1.ConfirmRequest{Reference: reference, Code: "A"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who gave up gets %v", err)
	}
	time.Sleep(200 * time.Millisecond)
}
