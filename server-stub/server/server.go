// Package server is central management as the contract in proto/control/v1 has
// it: it admits machines, tells them what their people are to have, issues
// certificates, and keeps the record. One process serves one store, or several
// serve a [store.Shared] together.
package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/administrator"
	"smime-agent/server-stub/audit"
	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/challenge"
	"smime-agent/server-stub/crl"
	"smime-agent/server-stub/gate"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/publication"
	"smime-agent/server-stub/remind"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

// Settings are the server's times. A zero field stands for the default.
type Settings struct {
	// SyncInterval is how often an idle agent calls: 1 hour.
	SyncInterval time.Duration
	// PendingInterval is how often one calls for whom something is under way: 1 minute.
	PendingInterval time.Duration
	// IdentityLife is the validity of a device certificate: 30 days.
	IdentityLife time.Duration
	// IdentityGrace is how long after its end it may still be renewed: 30 days.
	IdentityGrace time.Duration
	// TokenLife is that of a join token that names none: 24 hours.
	TokenLife time.Duration
	// RemindInterval is how often the server looks for reminders to send: 1 hour.
	RemindInterval time.Duration
	// Calls is how many may be under way at once, those of administrators and those
	// that are held open not counted: 4,096. More are told to come back.
	Calls int
	// Connections and Handshakes are those of [gate.Limits].
	Connections, Handshakes int
}

func (s Settings) withDefaults() Settings {
	set := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	set(&s.SyncInterval, time.Hour)
	set(&s.PendingInterval, time.Minute)
	set(&s.IdentityLife, 30*24*time.Hour)
	set(&s.IdentityGrace, 30*24*time.Hour)
	set(&s.TokenLife, 24*time.Hour)
	set(&s.RemindInterval, time.Hour)
	if s.Calls == 0 {
		s.Calls = 4096
	}
	return s
}

// Config is what a server is made of.
type Config struct {
	Store     store.Store
	Issuer    *ca.Issuer
	Transport *ca.Transport
	// RootCRL gives the root's revocation list (DER), which is signed elsewhere and
	// handed out as it is.
	RootCRL  func() ([]byte, error)
	Mail     mail.Outbox
	Settings Settings
	// Externals are other CAs than the server's own, by the names that policy uses.
	Externals map[string]External
	// Directory opens the directory that certificates are written to; nil if there is none.
	Directory func(ctx context.Context) (publication.Session, error)
	// Scratch is a folder for copies; empty means that of the system.
	Scratch string
	// Audit gets a line for every call that changes something; Observe counts calls.
	// Either may be nil.
	Audit   *slog.Logger
	Observe Observer
	Now     func() time.Time
	Log     *slog.Logger
	// Fault, where set, may refuse a call before it is handled, and AfterFault may
	// lose the answer of one that was. Both get the method's bare name.
	Fault      func(method string) error
	AfterFault func(method string) error
}

// Observer counts.
type Observer interface {
	Call(method, code string, took time.Duration)
	Submission(outcome string)
	// Mails counts mails of a kind: "code", "reminder" or "digest".
	Mails(kind string, sent, failed int)
	Connection(result string)
}

// Server answers agents and administrators.
type Server struct {
	controlv1.UnimplementedControlServiceServer

	store store.Store
	// shared is the store again where other servers work over it; else nil.
	shared    store.Shared
	issuer    *ca.Issuer
	transport *ca.Transport
	rootCRL   func() ([]byte, error)
	mail      mail.Outbox
	settings  Settings
	externals map[string]External
	forwards  authority.Pace
	scratch   string
	audit     *slog.Logger
	strangers audit.Strangers
	observe   Observer
	now       func() time.Time
	log       *slog.Logger
	fault     func(string) error
	after     func(string) error

	current atomic.Pointer[inForce]
	// loading keeps one policy at a time coming into force.
	loading   sync.Mutex
	fleet     *fleet
	door      *gate.Door
	desk      *publication.Desk
	crl       *crl.List
	reminders *remind.Reminders
	// administrators says whose certificates are taken.
	administrators *administrator.Register
	codes          *challenge.Codes
	quit           chan struct{}
	// life ends when quit is closed.
	life  context.Context
	end   context.CancelFunc
	slots chan struct{}
	// calls are those under way that [Settings.Calls] bounds, held those of Await.
	calls    atomic.Int64
	held     atomic.Int64
	stopOnce sync.Once
	work     sync.WaitGroup
	// starting keeps work from beginning once Stop waits for it to end.
	starting sync.Mutex
}

// inForce is the policy with the number of its application in this process, and
// what the store says of its content.
type inForce struct {
	generation uint64
	revision   string
	policy     *policy.Policy
}

// New makes a server over a store, with the policy that the store holds, if any.
func New(c Config) (*Server, error) {
	s := &Server{
		store: c.Store, issuer: c.Issuer, transport: c.Transport, rootCRL: c.RootCRL, mail: c.Mail,
		scratch: c.Scratch, externals: c.Externals, audit: c.Audit, observe: c.Observe,
		settings: c.Settings.withDefaults(), now: c.Now, log: c.Log, fault: c.Fault, after: c.AfterFault,
		fleet: newFleet(), quit: make(chan struct{}), slots: make(chan struct{}, maxBackground),
	}
	s.shared, _ = c.Store.(store.Shared)
	s.life, s.end = context.WithCancel(context.Background())
	if s.now == nil {
		s.now = time.Now
	}
	if s.observe == nil {
		s.observe = nothing{}
	}
	if s.audit == nil {
		s.audit = slog.New(slog.DiscardHandler)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.door = gate.NewDoor(gate.Limits{Connections: s.settings.Connections, Handshakes: s.settings.Handshakes},
		func(result gate.Result) { s.observe.Connection(string(result)) }, s.log)
	of := sha256.Sum256(s.issuer.Certificate().Raw)
	s.crl = &crl.List{Store: s.store, Signer: s.issuer, Of: hex.EncodeToString(of[:]), Now: s.now, Log: s.log}
	s.reminders, s.codes = s.newReminders(), s.newCodes()
	s.administrators = &administrator.Register{Store: s.store, Now: s.now, Log: s.log}
	s.desk = s.newDesk(c.Directory)
	if err := errors.Join(s.own(s.life), s.loadPolicy(), roster.Rebuild(s.life, s.store)); err != nil {
		s.end()
		return nil, err
	}
	s.work.Go(s.listen)
	s.work.Go(s.maintain)
	s.work.Go(s.remind)
	s.work.Go(func() { s.desk.Run(s.life) })
	return s, nil
}

// Stop ends waiting calls and unfinished handshakes, and writes down what was only
// in memory. The store stays open: it is the caller's.
func (s *Server) Stop() error {
	s.stopOnce.Do(func() {
		s.starting.Lock()
		defer s.starting.Unlock()
		close(s.quit)
		s.end()
		s.door.Shut()
	})
	s.work.Wait()
	s.noteStrangers(s.strangers.End())
	if err := s.flush(context.Background(), 0); err != nil {
		return fmt.Errorf("write last contacts: %w", err)
	}
	return nil
}

// flushEvery is how often last contacts are written; flushAge is how old the
// written one must be, so that a fleet does not cost a write for each poll.
const (
	flushEvery = 5 * time.Minute
	flushAge   = time.Hour
)

func (s *Server) maintain() {
	tick, spell := time.NewTicker(flushEvery), time.NewTicker(audit.Spell)
	defer tick.Stop()
	defer spell.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-spell.C:
			s.noteStrangers(s.strangers.Due(s.now()))
			continue
		case <-tick.C:
		}
		if err := s.flush(context.Background(), flushAge); err != nil {
			s.log.Error("last contacts cannot be written", "error", err)
		}
	}
}

// remind looks for reminders at once and then again and again.
func (s *Server) remind() {
	tick := time.NewTicker(s.settings.RemindInterval)
	defer tick.Stop()
	for {
		told, err := s.Remind(s.life)
		if err != nil && s.life.Err() == nil {
			s.log.Error("reminders cannot be sent", "error", err)
		}
		if told > 0 {
			s.log.Info("reminders sent", "owners", told)
		}
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
	}
}

// maxBackground bounds what runs beside the calls; more is left for a later call.
const maxBackground = 16

// background runs something that a call does not wait for, and that Stop ends.
func (s *Server) background(run func(ctx context.Context)) {
	select {
	case s.slots <- struct{}{}:
	default:
		return
	}
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.life.Err() != nil {
		<-s.slots
		return
	}
	s.work.Go(func() {
		defer func() { <-s.slots }()
		run(s.life)
	})
}

// nothing is an [Observer] that does not count.
type nothing struct{}

func (nothing) Call(string, string, time.Duration) {}
func (nothing) Submission(string)                  {}
func (nothing) Mails(string, int, int)             {}
func (nothing) Connection(string)                  {}
