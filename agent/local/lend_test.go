package local

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
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
	case <-time.After(time.Minute):
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
	if d := time.Since(began); d > taskGrace+time.Minute {
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

// In virtual time: a service that goes again and again, each time soon after it
// took the session, has its helper back within seconds every time. The waits are
// for services that are not there.
func TestAServiceThatRestartsOftenGetsItsHelperBackEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		serving := make(chan net.Conn)
		d := Dialer{Address: "x", Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			near, far := net.Pipe()
			select {
			case serving <- far:
				return near, nil
			default: // nobody accepts
				return nil, errors.New("nobody home")
			}
		}}
		go d.AttachForever(ctx, Lending{Session: newMemory()})
		for range 20 {
			agent := newScripted()
			restarted, life := time.Now(), startMemory(t, agent, serving)
			<-agent.attached
			if took := time.Since(restarted); took > 2*againSoon {
				t.Errorf("the helper came back after %v", took)
			}
			time.Sleep(3 * time.Second)
			life.stop()
			time.Sleep(time.Second) // until the service manager starts it again
		}
	})
}

// memoryListener accepts what is dialed through a channel.
type memoryListener struct {
	dialed <-chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.dialed:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// life is a service from its start to its end.
type life struct{ stop func() }

// startMemory starts a service that is reached without a system's socket.
func startMemory(t *testing.T, agent *scripted, dialed <-chan net.Conn) life {
	t.Helper()
	s := &Server{Agent: agent, Log: slog.New(slog.DiscardHandler), PeerOf: func(net.Conn) (platform.Peer, error) {
		return platform.Peer{User: "uid:1000"}, nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, &memoryListener{dialed: dialed, closed: make(chan struct{})}) }()
	return life{stop: func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}}
}

// What a task that did not end in time waits for: a store, or a person.
func TestATaskThatTakesTooLong(t *testing.T) {
	h, m := open(t, nil), newMemory()
	m.block = make(chan struct{})
	s, end := h.lend("1000", m)
	defer end()
	for name, task := range map[string]struct {
		do   func(context.Context) error
		want enroll.Code
	}{
		"install":   {func(ctx context.Context) error { return s.Install(ctx, enroll.InstallWanted{}) }, enroll.CodeStoreHangs},
		"prove":     {func(ctx context.Context) error { _, err := s.Prove(ctx, enroll.ProofWanted{}); return err }, enroll.CodeStoreHangs},
		"inventory": {func(ctx context.Context) error { _, err := s.Inventory(ctx, nil); return err }, enroll.CodeStoreHangs},
		"ask":       {func(ctx context.Context) error { _, err := s.Ask(ctx, enroll.Question{}); return err }, enroll.CodeInternal},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := task.do(ctx)
		cancel()
		if e := enroll.AsError(err); e.Code != task.want || e.Kind != enroll.Transient || e.Hint == "" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
