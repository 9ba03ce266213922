package local

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/enroll"
)

// In virtual time: a service that is absent for a day is dialed every few minutes.
func TestAnAbsentServiceIsNotPolledBusily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		dials, reports := 0, 0
		d := Dialer{Address: "x", Dial: func(context.Context, string) (net.Conn, error) {
			dials++
			return nil, errors.New("nobody home")
		}}
		d.AttachForever(ctx, Lending{Session: newMemory(), Report: func(err error) {
			reports++
			if reasonOf(err) != ReasonNotRunning {
				t.Error(err)
			}
		}})
		if perMinute := float64(dials) / (24 * 60); perMinute > 0.25 || perMinute < 0.1 {
			t.Errorf("%d dials a day", dials)
		}
		if reports != 1 {
			t.Errorf("told %d times", reports)
		}
	})
}

func TestAHelperComesBackWhenTheServiceDoes(t *testing.T) {
	first := open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan error, 64)
	ended := make(chan struct{})
	var serving atomic.Pointer[house]
	serving.Store(first)
	d := Dialer{Address: "x", Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		h := serving.Load()
		return h.dial(ctx, "1000", h.address)
	}}
	second := open(t, nil)
	go func() {
		defer close(ended)
		d.AttachForever(ctx, Lending{Session: newMemory(), Report: func(err error) { reports <- err }})
	}()
	if err := <-reports; err != nil {
		t.Fatal(err)
	}
	<-first.agent.attached
	serving.Store(second)
	first.stop()
	if err := <-reports; err == nil {
		t.Error("not told that it ended")
	}
	select {
	case a := <-second.agent.attached:
		if err := a.Session.Notify(ctx, enroll.Notice{}); err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not come back")
	}
	cancel()
	<-ended
}

// A task that heeds nothing must not keep the helper from lending again.
func TestAStuckTaskDoesNotHoldTheHelper(t *testing.T) {
	h, m := open(t, nil), newMemory()
	stuck := deaf{m, make(chan struct{})}
	defer close(stuck.never)
	s, end := h.lend("1000", stuck)
	go func() { _ = s.Install(t.Context(), enroll.InstallWanted{}) }()
	<-m.entered
	began := time.Now()
	end()
	if d := time.Since(began); d > 2*taskGrace {
		t.Errorf("held for %v", d)
	}
}

// deaf installs until its channel closes, whatever its context says.
type deaf struct {
	*memory
	never chan struct{}
}

func (d deaf) Install(context.Context, enroll.InstallWanted) error {
	d.entered <- struct{}{}
	<-d.never
	return nil
}
