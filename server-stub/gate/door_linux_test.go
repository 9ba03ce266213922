package gate

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

// threeFlights stands for TLS: the client's word, ours, and the client's again; we
// compute after each of the client's.
type threeFlights struct {
	credentials.TransportCredentials
	compute func()
}

// hello is how long the client's first word is.
const hello = 1000

func (h threeFlights) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	word := make([]byte, 1)
	if _, err := io.ReadFull(raw, make([]byte, hello)); err != nil {
		return nil, nil, err
	}
	h.compute()
	if _, err := raw.Write(word); err != nil {
		return nil, nil, err
	}
	if _, err := io.ReadFull(raw, word); err != nil {
		return nil, nil, err
	}
	h.compute()
	return raw, nil, nil
}

// entrance is a door on a real socket.
type entrance struct {
	*Door
	addr string
	mu   sync.Mutex
	seen []Result
	// through gets each connection that is.
	through chan net.Conn
}

func open(t *testing.T, limits Limits, turns int, compute func()) *entrance {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &entrance{addr: l.Addr().String(), through: make(chan net.Conn, 1000)}
	e.Door = NewDoor(limits, func(r Result) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.seen = append(e.seen, r)
	}, slog.New(slog.DiscardHandler))
	e.turns, e.patience, e.crowdPatience = turns, time.Hour, time.Hour
	creds := New(threeFlights{compute: compute}, nil, e.Door)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				conn, _, err := creds.ServerHandshake(raw)
				if err != nil {
					_ = raw.Close()
					return
				}
				e.through <- conn
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); e.Shut(); serving.Wait() })
	return e
}

// count is how often a result was.
func (e *entrance) count(r Result) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, seen := range e.seen {
		if seen == r {
			n++
		}
	}
	return n
}

// dial connects from an address of the loopback, 127.0.0.N. Whoever is turned away
// may hear of it here already.
func (e *entrance) dial(t *testing.T, n byte) (net.Conn, error) {
	t.Helper()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}}
	conn, err := from.DialContext(t.Context(), "tcp", e.addr)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// call is dial where there is a place.
func (e *entrance) call(t *testing.T, n byte) net.Conn {
	t.Helper()
	conn, err := e.dial(t, n)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// try dials and does the client's part, from 127.0.0.1.
func (e *entrance) try(t *testing.T) error {
	t.Helper()
	conn, err := e.dial(t, 1)
	if err != nil {
		return err
	}
	return shake(conn)
}

// shake does the client's part; nil means that it came through.
func shake(conn net.Conn) error {
	word := []byte{1}
	if _, err := conn.Write(make([]byte, hello)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, word); err != nil {
		return err
	}
	_, err := conn.Write(word)
	return err
}

// until waits for something that must come.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			t.Fatal("never: ", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestTurns: of 40 who come at once no more than two compute at a time, all get
// through, and those who say nothing take nobody's turn.
func TestTurns(t *testing.T) {
	const turns, clients = 2, 40
	var now, most atomic.Int64
	e := open(t, Limits{Connections: 1000, Handshakes: 200}, turns, func() {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
	})
	for range 20 {
		e.call(t, 2)
	}
	var wg sync.WaitGroup
	for range clients {
		conn := e.call(t, 1)
		wg.Go(func() {
			if err := shake(conn); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range clients {
		_ = (<-e.through).Close()
	}
	if most.Load() > turns {
		t.Errorf("%d computed at once", most.Load())
	}
	until(t, "only the silent ones are left", func() bool {
		open, handshakes := e.Counts()
		return open == 20 && handshakes == 20
	})
	if n := e.count(Nameless); n != clients {
		t.Errorf("%d are counted", n)
	}
}

// TestEndingFirst: who is nearly through goes before who has just come.
func TestEndingFirst(t *testing.T) {
	d := NewDoor(Limits{}, func(Result) {}, slog.New(slog.DiscardHandler))
	d.turns = 1
	var order []string
	var mu sync.Mutex
	enter := func() *visitor {
		conn, _ := net.Pipe()
		v, err := d.enter(conn)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	var wg sync.WaitGroup
	wait := func(name string, v *visitor, queue interface{ Len() int }) {
		wg.Go(func() {
			if !d.proceed(v, true) {
				t.Error(name, "may not go on")
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			d.pause(v)
		})
		until(t, name+" waits", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return queue.Len() == 1 })
	}
	first, fresh, ending := enter(), enter(), enter()
	if !d.proceed(first, true) {
		t.Fatal("the first does not get the only turn")
	}
	wait("fresh", fresh, &d.starting)
	ending.answered = true
	wait("ending", ending, &d.ending)
	d.pause(first)
	wg.Wait()
	if !slices.Equal(order, []string{"ending", "fresh"}) || d.turns != 1 {
		t.Errorf("in turn: %v; %d turns left", order, d.turns)
	}
}

// TestSlow: when all places are taken by some that say nothing, or a byte now and
// then, they make room for whoever needs it; who comes before their time is over is
// turned away at once. No more are kept than may be.
func TestSlow(t *testing.T) {
	const places = 8
	e := open(t, Limits{Connections: 100, Handshakes: places}, 2, func() {})
	var slow []net.Conn
	for n := range places {
		slow = append(slow, e.call(t, byte(2+n)))
	}
	until(t, "all places are taken", func() bool { _, n := e.Counts(); return n == places })
	if e.try(t) == nil {
		t.Error("somebody got in where no place was")
	}
	until(t, "somebody is turned away", func() bool { return e.count(Refused) == 1 })
	done := make(chan struct{})
	var dribbling sync.WaitGroup
	defer dribbling.Wait()
	defer close(done)
	for _, conn := range slow[:places/2] {
		dribbling.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
					_, _ = conn.Write([]byte{1}) // ends in an error when it is put out
				}
			}
		})
	}
	e.mu.Lock()
	e.seen = nil
	e.mu.Unlock()
	e.Door.mu.Lock()
	e.patience = 100 * time.Millisecond
	e.Door.mu.Unlock()
	until(t, "all came through", func() bool {
		_ = e.try(t) // comes again when it is turned away
		if _, n := e.Counts(); n > places {
			t.Fatalf("%d are in the handshake", n)
		}
		return e.count(Nameless) >= places
	})
	if e.count(Stalled) == 0 {
		t.Error("nobody was put out")
	}
}

// TestOneAddress: one address gets half of the places and no more, so that another
// gets in beside it.
func TestOneAddress(t *testing.T) {
	e := open(t, Limits{Connections: 100, Handshakes: 8}, 2, func() {})
	for range 20 {
		_, _ = e.dial(t, 2) // some of them must fail
	}
	until(t, "the rest is turned away", func() bool { return e.count(RefusedAddress) == 16 })
	if _, n := e.Counts(); n != 4 {
		t.Errorf("one address has %d places", n)
	}
	if err := shake(e.call(t, 1)); err != nil {
		t.Error(err)
	}
	until(t, "another comes through", func() bool { return e.count(Nameless) == 1 })
}

// TestCrowd: when all places are taken, an address that has none gets one from
// another that has several, long before one that has no more than itself.
func TestCrowd(t *testing.T) {
	e := open(t, Limits{Connections: 100, Handshakes: 8}, 2, func() {})
	for n := range byte(8) {
		e.call(t, 2+n/4) // four and four
	}
	until(t, "all places are taken", func() bool { _, n := e.Counts(); return n == 8 })
	e.Door.mu.Lock()
	e.crowdPatience = 0
	e.Door.mu.Unlock()
	if err := e.try(t); err != nil {
		t.Error(err)
	}
	until(t, "it is in", func() bool { return e.count(Nameless) == 1 && e.count(Stalled) == 1 })
	e.call(t, 2) // the place that is free again; then each has four, or three
	until(t, "all places are taken again", func() bool { _, n := e.Counts(); return n == 8 })
	_, _ = e.dial(t, 3)
	until(t, "one who has as many is turned away", func() bool { return e.count(Refused)+e.count(RefusedAddress) == 1 })
}

// TestNameless: callers without an identity have an eighth of the connections. The
// oldest makes room, but not before its time.
func TestNameless(t *testing.T) {
	e := open(t, Limits{Connections: 16, Handshakes: 16}, 2, func() {})
	calls := []net.Conn{e.call(t, 1), e.call(t, 1), e.call(t, 1)}
	for i, conn := range calls[:2] {
		if err := shake(conn); err != nil {
			t.Fatal(err)
		}
		until(t, "it is in", func() bool { return e.count(Nameless) == i+1 })
	}
	_ = shake(calls[2])
	until(t, "the third is turned away", func() bool { return e.count(Refused) == 1 })
	e.Door.mu.Lock()
	e.namelessPatience = 0
	e.Door.mu.Unlock()
	if err := shake(e.call(t, 1)); err != nil {
		t.Fatal(err)
	}
	until(t, "the fourth is in", func() bool { return e.count(Nameless) == 3 && e.count(Stalled) == 1 })
	if _, err := calls[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest is still connected")
	}
	if open, _ := e.Counts(); open != 2 {
		t.Errorf("%d are open", open)
	}
}

// TestShut: whoever is in the middle of the handshake is closed, and nobody comes after.
func TestShut(t *testing.T) {
	e := open(t, Limits{}, 2, func() {})
	half := e.call(t, 1)
	until(t, "it is there", func() bool { _, n := e.Counts(); return n == 1 })
	e.Shut()
	if _, err := half.Read(make([]byte, 1)); err == nil {
		t.Error("still connected")
	}
	if e.try(t) == nil {
		t.Error("somebody gets in")
	}
	if open, _ := e.Counts(); open != 0 {
		t.Errorf("%d are open", open)
	}
}

// TestSourceOf: an IPv6 network is one source, an IPv4 address in IPv6 is itself.
func TestSourceOf(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1": "fe80::/64",
	} {
		if got := SourceOf(&net.TCPAddr{IP: net.ParseIP(text), Zone: ""}).String(); got != want {
			t.Errorf("%s is of %s", text, got)
		}
	}
}
