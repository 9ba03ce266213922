package platform

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ticks sleeps on a timer of the kernel. It spares more than the precision of
// timers of Go is worth: for each of those the runtime's own watching thread
// wakes too, some twenty times in a row, since the kernel lets epoll_wait(2)
// come late by up to a thousandth of a long wait.
func ticks(ctx context.Context, every time.Duration, tick func()) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		ticksByTimer(ctx, every, tick)
		return
	}
	timer := os.NewFile(uintptr(fd), "clock")
	stop := context.AfterFunc(ctx, func() { _ = timer.Close() }) // ends the reading
	defer stop()
	for {
		err := sleep(timer, every)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			_ = timer.Close()
			ticksByTimer(ctx, every, tick)
			return
		}
		tick()
	}
}

// sleep waits until the span has passed or the clock was set, which waking from
// sleep counts as (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func sleep(timer *os.File, span time.Duration) error {
	raw, err := timer.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		at := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().Add(span).UnixNano())}
		failed = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &at, nil)
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if _, err := timer.Read(make([]byte, 8)); err != nil && !errors.Is(err, unix.ECANCELED) {
		return err
	}
	return nil
}
