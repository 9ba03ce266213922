package pgtest

import (
	"net"
	"sync"
	"testing"
)

// Wire is a way to the cluster that can be cut.
type Wire struct {
	// Addr is where to connect.
	Addr string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
	// flow is held while nothing passes.
	flow sync.RWMutex
}

// Stall has the way swallow everything without a word, until the function that it gives is called.
func (w *Wire) Stall() (flow func()) {
	w.flow.Lock()
	return w.flow.Unlock
}

// pass carries one direction.
func (w *Wire) pass(to, from net.Conn) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		w.flow.RLock()
		_, writeErr := to.Write(piece[:n])
		w.flow.RUnlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}

// NewWire makes a way of its own to an address.
func NewWire(t testing.TB, to string) *Wire {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{Addr: l.Addr().String(), conns: map[net.Conn]struct{}{}}
	t.Cleanup(func() { _ = l.Close(); w.Cut() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(conn, to)
		}
	}()
	return w
}

// Cut breaks all connections and refuses new ones until [Wire.Mend].
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for conn := range w.conns {
		_ = conn.Close()
	}
}

// Mend lets connections through again.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

func (w *Wire) hold(conn net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return false
	}
	w.conns[conn] = struct{}{}
	return true
}

func (w *Wire) drop(conn net.Conn) {
	_ = conn.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, conn)
}

func (w *Wire) carry(near net.Conn, to string) {
	defer w.drop(near)
	if !w.hold(near) {
		return
	}
	far, err := (&net.Dialer{}).Dial("tcp", to)
	if err != nil {
		return
	}
	defer w.drop(far)
	if !w.hold(far) {
		return
	}
	go func() { w.pass(far, near); _ = far.Close(); _ = near.Close() }()
	w.pass(near, far)
}
