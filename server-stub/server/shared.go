package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

// word is what servers over one store tell each other, so that a call that one
// of them holds ends when something happened at another. Nothing is wrong if it
// is lost: each call looks at the store itself.
type word struct {
	Kind   string    `json:"kind"`
	Device string    `json:"device,omitempty"`
	At     time.Time `json:"at,omitzero"`
}

const (
	wordChanged = "changed" // something is new for the device, or for all without one
	wordAsked   = "asked"   // an administrator wants a fresh report of the device
	wordCalled  = "called"  // a device that was asked has called
)

func tell(tx store.Tx, w word) {
	if text, err := json.Marshal(w); err == nil {
		store.Tell(tx, string(text))
	}
}

// tellChanged says that something is new for a device; all of them if it is empty.
func tellChanged(tx store.Tx, device string) { tell(tx, word{Kind: wordChanged, Device: device}) }

// listen hears what other servers tell, where there are any.
func (s *Server) listen() {
	if s.shared != nil {
		s.shared.Listen(s.life, s.hear, s.fleet.wakeAll)
	}
}

func (s *Server) hear(text string) {
	var w word
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return // of a newer version: the calls look for themselves
	}
	if w.Kind == wordChanged {
		s.desk.Poke() // it may have been revoked
	}
	m := s.fleet.peek(w.Device)
	switch {
	case w.Kind == wordChanged && w.Device == "":
		s.fleet.wakeAll()
		return
	case m == nil: // the device has not called here
	case w.Kind == wordAsked:
		m.wish(w.At)
	case w.Kind == wordCalled:
		m.called(w.At)
	}
	s.fleet.wake(w.Device)
}

// ask notes that an administrator wants a call after now.
func (m *member) ask(now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !now.After(m.last) { // a clock that was set back must not lose the wish
		now = m.last.Add(time.Nanosecond)
	}
	m.asked = now
	return now
}

// wish notes what another server was asked for; a device that has called since
// has fulfilled it.
func (m *member) wish(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = later(m.asked, at)
}

// called notes a contact, which never goes back.
func (m *member) called(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.After(m.last) {
		m.last = at
	}
}

// pass tells the other servers at once, where there are any.
func (s *Server) pass(ctx context.Context, w word) error {
	if s.shared == nil {
		return nil
	}
	return s.store.Update(ctx, func(tx store.Tx) error { tell(tx, w); return nil })
}

// refresh brings to date what is kept in memory, where other servers write to
// the store too: the policy in force, and the device if one is named.
func (s *Server) refresh(id string) error {
	if s.shared == nil {
		return nil
	}
	var revision string
	var device store.Standing
	var message []byte
	var last time.Time
	found := false
	refs := []store.Ref{{Bucket: store.Meta, Key: []byte(metaRevision)}}
	if id != "" {
		refs = append(refs, store.Ref{Bucket: store.Devices, Key: []byte(id)}, store.Ref{Bucket: store.Statuses, Key: []byte(id)})
	}
	filed := s.fleet.peek(id).count()
	err := store.Glance(s.shared, refs, nil, func(tx store.Tx) error {
		revision = string(tx.Get(store.Meta, []byte(metaRevision)))
		if id == "" {
			return nil
		}
		message, last, _ = store.Stamped(tx.Get(store.Statuses, []byte(id)))
		var err error
		found, err = store.GetJSON(tx, store.Devices, []byte(id), &device)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.followPolicy(revision); err != nil || !found {
		return err
	}
	m, err := s.member(id)
	if err != nil || m == nil {
		return err
	}
	return m.follow(filed, device.State, message, last)
}

// follow takes over what another server may have written of the device; no report
// if this one has filed another since filed was counted, before the record was
// read: the next call looks again.
func (m *member) follow(filed uint64, state string, message []byte, last time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	if last.After(m.last) {
		m.last = last
	}
	if m.filed != filed {
		return nil
	}
	m.written = last
	hash := sha256.Sum256(message)
	if hash == m.hash {
		return nil
	}
	report := &controlv1.SyncRequest{}
	if err := proto.Unmarshal(message, report); err != nil {
		return fmt.Errorf("decode status: %w", err)
	}
	m.hash, m.report, m.revision = hash, report, ""
	return nil
}

// later is the later of two contacts: another server may have had the last one.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// metaTransport is whose the records are: the fingerprint of the transport CA.
const metaTransport = "transport_ca"

// ErrForeign: the database has the records of another installation.
var ErrForeign = errors.New("the database has the records of another server, with another transport CA")

// own refuses a database of another installation: devices could not sign in.
func (s *Server) own(ctx context.Context) error {
	if s.shared == nil {
		return nil
	}
	ours := sha256.Sum256(s.transport.Cert.Raw)
	return s.store.Update(ctx, func(tx store.Tx) error {
		switch have := tx.Get(store.Meta, []byte(metaTransport)); {
		case have == nil:
			return tx.Put(store.Meta, []byte(metaTransport), ours[:])
		case string(have) != string(ours[:]):
			return fmt.Errorf("%w; every server over one database needs a copy of the same data directory", ErrForeign)
		}
		return nil
	})
}
