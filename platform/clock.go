package platform

import (
	"context"
	"time"
)

// Ticks gives a value every so often by the wall clock, and at once when the
// machine wakes or its clock is set, where the system tells: a timer of Go
// stands still while a machine sleeps. Where the system does not tell, there is
// a value at least every minute. Values that nobody takes are not kept. The
// channel is closed after ctx has ended.
func Ticks(ctx context.Context, every time.Duration) <-chan struct{} {
	c := make(chan struct{}, 1)
	go func() {
		defer close(c)
		ticks(ctx, every, func() {
			select {
			case c <- struct{}{}:
			default:
			}
		})
	}()
	return c
}

// ticksByTimer is for systems that do not tell.
func ticksByTimer(ctx context.Context, every time.Duration, tick func()) {
	t := time.NewTicker(min(every, time.Minute))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			tick()
		}
	}
}
