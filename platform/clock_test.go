package platform_test

import (
	"context"
	"testing"
	"time"

	"smime-agent/platform"
)

// TestTicks: values come again and again, and end with the context. That they
// come when the clock is set is not tested: only root can set it.
func TestTicks(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	const every = 30 * time.Millisecond
	c := platform.Ticks(ctx, every)
	for range 3 {
		select {
		case <-c:
		case <-time.After(30 * time.Second):
			t.Fatal("no tick")
		}
	}
	if took := time.Since(began); took < 3*every-5*time.Millisecond {
		t.Errorf("three ticks after %v", took)
	}
	cancel()
	for limit := time.After(30 * time.Second); ; {
		select {
		case _, open := <-c:
			if !open {
				return
			}
		case <-limit:
			t.Fatal("the ticks do not end with their context")
		}
	}
}
