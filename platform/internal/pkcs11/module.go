//go:build cgo || windows

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Module is a library that this process has loaded. It stays loaded until the
// process ends: NSS and the TPM stack do not survive being unloaded.
type Module struct {
	path string
	c    *binding
	// turn holds one token; who takes it may initialize the library, and may
	// touch resting.
	turn chan struct{}
	// resting is what the library is still initialized for; nil for nothing.
	resting *rest
	// rests says so to whoever has not the turn.
	rests atomic.Bool
}

// loaded is the one piece of package state: C_Initialize acts on the whole
// process, so two users of one library must share its lock, wherever in the
// process they come from. nss holds one token: of two of NSS's libraries, such
// as the system's and Thunderbird's, only one may be initialized at a time. The
// second answers CKR_DEVICE_ERROR (measured with 3.87.1 and 3.125.1).
var loaded = struct {
	sync.Mutex
	modules map[string]*Module
	nss     chan struct{}
}{modules: map[string]*Module{}, nss: make(chan struct{}, 1)}

// Load loads the library at path, after the siblings that it does not find by
// itself (Mozilla programs keep NSS's libraries in their own folder). A second
// Load of the same path gives the same Module.
func Load(path string, siblings ...string) (*Module, error) {
	// Two names of one library are one library: its state must have one lock.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	loaded.Lock()
	defer loaded.Unlock()
	if m, ok := loaded.modules[path]; ok {
		return m, nil
	}
	c, err := bind(path, siblings)
	if err != nil {
		return nil, err
	}
	m := &Module{path: path, c: c, turn: make(chan struct{}, 1)}
	loaded.modules[path] = m
	return m, nil
}

// Path is where the library lies.
func (m *Module) Path() string { return m.path }

// use runs fn between C_Initialize and C_Finalize, alone. Initializing each
// time costs milliseconds and buys three things: one library serves several
// NSS directories one after another; what other programs changed meanwhile is
// seen (tpm2-pkcs11 reads its objects only at C_Initialize); no login outlives
// its use. A place that can tell whether it was changed is spared the cost
// where one use follows closely on another; see [rest].
func (m *Module) use(ctx context.Context, p Place, fn func() error) error {
	if len(p.Files) > 0 {
		select {
		case loaded.nss <- struct{}{}:
			defer func() { <-loaded.nss }()
		case <-ctx.Done():
			return ctx.Err()
		}
		m.wakeOthers()
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := m.begin(p); err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended { // fn panicked
			_ = m.c.Finalize()
		}
	}()
	err := fn()
	ended = true
	if _, failed := errors.AsType[Code](err); len(p.Files) > 0 && !failed {
		m.rest(p)
		return err
	}
	if e := m.finalize(); e != nil && err == nil {
		return e
	}
	return err
}

// begin initializes the library for p, unless it is so still. Callers have the turn.
func (m *Module) begin(p Place) error {
	if r := m.resting; r != nil {
		m.resting = nil
		m.rests.Store(false)
		r.timer.Stop()
		if r.goesOn(p) {
			return nil
		}
		if err := m.finalize(); err != nil {
			return err
		}
	}
	if err := initialize(m.c, p.Init); err != nil {
		return fmt.Errorf("initialize %s: %w", m.path, err)
	}
	return nil
}

func (m *Module) finalize() error {
	if err := m.c.Finalize(); err != nil {
		return fmt.Errorf("finalize %s: %w", m.path, err)
	}
	return nil
}
