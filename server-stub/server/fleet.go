package server

import (
	"context"
	"maps"
	"sync"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

// fleet is what the server remembers of devices between their calls, so that a
// poll that brings nothing new touches no disk. All of it can be lost.
type fleet struct {
	mu      sync.Mutex
	devices map[string]*member
	waiters map[string]chan struct{}
}

// member is one device. Its fields are guarded by its mutex.
type member struct {
	mu    sync.Mutex
	state string
	// report is the last one, without what changes from call to call.
	report *controlv1.SyncRequest
	hash   [32]byte
	// filed counts the reports that this server has filed. Whoever has read the record
	// before the count went on may have an older one.
	filed uint64
	// settled is the report whose values for the directory are all filed.
	settled [32]byte
	last    time.Time
	// written is the last contact that the store has.
	written time.Time
	// generation, users → revision: what was compiled last.
	generation uint64
	revision   string
	// next is when the device was told to call again, asked when an administrator
	// last wanted it to.
	next  time.Time
	asked time.Time
	// sent are the orders that an answer carried since the server began.
	sent map[string]bool
}

func newFleet() *fleet {
	return &fleet{devices: map[string]*member{}, waiters: map[string]chan struct{}{}}
}

// peek gives the device's memory, or nil if it has not called since the server began.
func (f *fleet) peek(id string) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.devices[id]
}

// member gives the device's memory, from the store at first; nil if there is no
// such device.
func (s *Server) member(id string) (*member, error) {
	s.fleet.mu.Lock()
	m := s.fleet.devices[id]
	s.fleet.mu.Unlock()
	if m != nil {
		return m, nil
	}
	var device store.Device
	var found bool
	loaded := &member{sent: map[string]bool{}}
	err := s.store.View(func(tx store.Tx) error {
		var err error
		if found, err = store.GetJSON(tx, store.Devices, []byte(id), &device); err != nil || !found {
			return err
		}
		loaded.report, loaded.written, err = ledger.DecodeStatus(tx.Get(store.Statuses, []byte(id)))
		return err
	})
	if err != nil || !found {
		return nil, err
	}
	loaded.state, loaded.last = device.State, loaded.written
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if m := s.fleet.devices[id]; m != nil {
		return m, nil
	}
	s.fleet.devices[id] = loaded
	return loaded, nil
}

// admitted refuses devices that wait, were removed, or are not known.
func (s *Server) admitted(id string) error {
	m, err := s.member(id)
	if err != nil {
		return err
	}
	if m == nil {
		return refuse(controlv1.Reason_REASON_DEVICE_REFUSED, "This server has no such device.")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return judgeState(m.state)
}

func judgeState(state string) error {
	switch state {
	case store.Admitted:
		return nil
	case store.Waiting:
		return refuse(controlv1.Reason_REASON_DEVICE_PENDING, "The device waits for an administrator's approval.")
	default:
		return refuse(controlv1.Reason_REASON_DEVICE_REFUSED, "An administrator removed the device.")
	}
}

// count gives how many reports this server has filed; none of a device that has not called here.
func (m *member) count() uint64 {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.filed
}

// wait gives a channel that is closed when something that concerns the device changes.
func (f *fleet) wait(id string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := f.waiters[id]
	if ch == nil {
		ch = make(chan struct{})
		f.waiters[id] = ch
	}
	return ch
}

// wake wakes who waits for the device.
func (f *fleet) wake(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch := f.waiters[id]; ch != nil {
		close(ch)
		delete(f.waiters, id)
	}
}

func (f *fleet) wakeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, ch := range f.waiters {
		close(ch)
		delete(f.waiters, id)
	}
}

func (f *fleet) all() map[string]*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]*member, len(f.devices))
	maps.Copy(out, f.devices)
	return out
}

// flushChunk bounds one write of last contacts.
const flushChunk = 256

// flush writes last contacts that the store has only as older than age.
func (s *Server) flush(ctx context.Context, age time.Duration) error {
	var due []contact
	for id, m := range s.fleet.all() {
		m.mu.Lock()
		if m.last.Sub(m.written) > age {
			due = append(due, contact{id: id, member: m, last: m.last})
		}
		m.mu.Unlock()
	}
	for len(due) > 0 {
		chunk := due[:min(flushChunk, len(due))]
		due = due[len(chunk):]
		if err := s.store.Update(ctx, func(tx store.Tx) error { return putContacts(tx, chunk) }); err != nil {
			return err
		}
		for _, c := range chunk {
			c.member.mu.Lock()
			c.member.written = c.last
			c.member.mu.Unlock()
		}
	}
	return nil
}

type contact struct {
	id     string
	member *member
	last   time.Time
}

func putContacts(tx store.Tx, contacts []contact) error {
	for _, c := range contacts {
		if err := roster.PutContact(tx, c.id, c.last); err != nil {
			return err
		}
	}
	return nil
}
