// Package service builds the agent's service out of its parts and runs it: the
// record, the engine, the way to central management, the local API, the logs.
package service

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"smime-agent/agent/config"
	"smime-agent/agent/control"
	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/state"
	"smime-agent/platform"
)

// Options is what the command hands to [Run].
type Options struct {
	// Sources is where settings come from.
	Sources config.Sources
	Version string
	// Console also gets the log; nil for none.
	Console io.Writer
	// Managed says that the system's service manager started the program.
	Managed bool
	// Handover takes a join token that an installer left, as
	// [platform.TakeHandover] does; nil where none leaves any.
	Handover func(keep func(platform.Handover) error) error

	system platform.SystemLog
}

// Service is the running whole.
type Service struct {
	options  Options
	log      *slog.Logger
	logs     *logs
	record   *state.DB
	secrets  platform.SecretStore
	engine   *enroll.Engine
	sessions *local.Sessions
	audit    *auditTrail
	wrong    *conditions
	machine  platform.Machine
	started  time.Time
	// thrift is stirred by whatever comes from outside and all that changes.
	thrift *platform.Thrift

	correspondence *correspondence

	// poke and ticked wake the contact loop: something is to be reported, the
	// wall clock is to be looked at. watchers wakes who follows the status.
	poke     chan struct{}
	ticked   chan struct{}
	watchers broadcast
	// pace counts contacts against the floor between them.
	pace *rate.Limiter
	// clock is the newest client, which knows central's time, and offset what was
	// remembered before there was one. See [Service.now].
	clock  atomic.Pointer[control.Client]
	offset atomic.Int64
	// contacting is held while central management is asked.
	contacting sync.Mutex

	mu       sync.Mutex
	settings config.Settings
	problems []config.Problem
	print    config.Fingerprint // of the settings' sources
	files    string             // stamps of the files that they name
	client   *control.Client
	joined   control.Joined
	memory   state.Sync // what is remembered of the exchange
	policy   *enroll.Policy
	// failures counts contacts that failed in a row.
	failures   int
	starting   bool
	rebuilding bool              // the record is not to be believed before central has answered
	reported   [sha256.Size]byte // digest of what central management was told
	refusedFor string            // why joining was refused last
	hindrance  enroll.Code       // what kept us from central management last
	noToken    string            // why there is no join token
}

// Run builds the service and runs it until ctx ends. A setting that is wrong
// does not stop it: it becomes a condition. What does stop it is a folder that
// is not ours, a record that another agent holds, an address that is taken: a
// *[StartError].
func Run(ctx context.Context, o Options) error {
	s, err := build(o)
	if err != nil {
		return err
	}
	defer func() { _ = s.logs.close() }() // nobody is left to be told
	if err := s.open(); err != nil {
		s.log.Error("service not started", "error", err) // nobody may see what the command says of it
		return err
	}
	err = s.run(ctx)
	if !errors.Is(err, errHung) { // what hangs may hold what closing waits for
		s.close()
	}
	return err
}

// build makes a service with its settings and logs, and nothing else yet.
func build(o Options) (*Service, error) {
	settings, problems := config.Load(o.Sources)
	l, err := openLogs(settings.LogDir, settings.LogMaxSizeMB, settings.LogMaxFiles, settings.LogLevel, o.Console)
	if err != nil {
		return nil, notStarted(settings.LogDir, err)
	}
	if o.Managed {
		l.manage(o.system, settings.LogDir)
	}
	s := &Service{
		options: o, log: l.Log, logs: l, sessions: &local.Sessions{}, machine: platform.ThisMachine(), started: time.Now(), thrift: platform.NewThrift(),
		poke: make(chan struct{}, 1), ticked: make(chan struct{}, 1), settings: settings, problems: problems, starting: true,
		print: o.Sources.Fingerprint(), files: fileStamps(settings), pace: rate.NewLimiter(rate.Every(settings.SyncFloor), burst),
	}
	s.wrong = &conditions{now: s.now, changed: s.watchers.tell}
	return s, nil
}

// open makes what must be there before anything runs.
func (s *Service) open() error {
	dir := s.settings.StateDir
	if err := platform.PrivateDir(dir); err != nil {
		return notStarted(dir, err)
	}
	var err error
	if s.secrets, err = platform.Secrets(dir); err != nil {
		return notStarted(dir, err)
	}
	record, opened, err := state.Open(filepath.Join(dir, "agent.db"), state.Options{Now: time.Now, OutboxLimit: outboxLimit})
	if err != nil {
		return notStarted(filepath.Join(dir, "agent.db"), err)
	}
	s.record = record
	s.audit = newAuditTrail(s)
	if s.memory, err = record.Sync(); err != nil {
		return errors.Join(fmt.Errorf("read record: %w", err), record.Close())
	}
	s.offset.Store(int64(s.memory.Offset))
	if s.policy, err = record.Policy(); err != nil {
		return errors.Join(fmt.Errorf("read record: %w", err), record.Close())
	}
	if s.correspondence, err = newCorrespondence(record); err != nil {
		return errors.Join(fmt.Errorf("read record: %w", err), record.Close())
	}
	return s.openEngine(opened)
}

func (s *Service) openEngine(opened state.Opened) error {
	s.engine = &enroll.Engine{
		Ledger: ledger{s.audit}, Sessions: lent{s}, Authority: authority{s}, Now: s.now,
		Log: s.log, Rebuilding: s.doubts(opened),
		Timing: enroll.Timing{
			BackoffCap: s.settings.RetryCap, ProofInterval: s.settings.ProofInterval, PromptTimeout: s.settings.PromptTimeout,
			Sleep: engineSleep,
		},
	}
	if err := s.engine.Load(); err != nil {
		return errors.Join(err, s.record.Close())
	}
	if s.policy != nil {
		if err := s.engine.Apply(*s.policy); err != nil {
			s.log.Error("stored policy not applied", "error", err)
		}
	}
	return nil
}

func (s *Service) close() {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
	s.audit.close()
	if err := s.record.Close(); err != nil {
		s.log.Error("record not closed", "error", err)
	}
}

func (s *Service) run(ctx context.Context) error {
	listener, err := platform.Listen(s.settings.Address)
	if err != nil {
		s.log.Error("service not started", "error", err)
		return notStarted(s.settings.Address, err)
	}
	s.event(eventStarted, outcomeSuccess)
	s.reportProblems()
	known := s.policy
	check, hung := newSelfCheck(s.settings.SelfCheck, s.settings.Address), filepath.Join(s.settings.LogDir, hangFile)
	server := &local.Server{Agent: s, Sessions: s.sessions, Log: s.log}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, listener) })
	group.Go(func() error { return quiet(s.engine.Run(ctx)) })
	group.Go(func() error { s.keepTime(ctx); return nil })
	if known != nil { // beside the rest: looking at all roots can take a second
		group.Go(func() error { s.trustAnchors(*known); return nil })
	}
	group.Go(func() error { return s.keepContact(ctx) })
	group.Go(func() error { return s.followChanges(ctx) })
	group.Go(func() error { s.keepCorrespondence(ctx); return nil })
	group.Go(func() error { s.askForCodes(ctx); return nil })
	group.Go(func() error { s.thrift.Run(ctx); return nil })
	s.log.Info("service started", "version", s.options.Version, "address", s.settings.Address, "pid", os.Getpid())
	if err = s.outlast(ctx, check, hung, group.Wait); errors.Is(err, errHung) {
		return err
	}
	s.event(eventStopped, outcomeSuccess)
	s.log.Info("service stopped")
	return err
}

// lent gives the engine the sessions that are lent. Where settings say so it
// bothers nobody with notices.
type lent struct{ s *Service }

// Session is [enroll.Sessions]'.
func (l lent) Session(user string) (enroll.Session, bool) {
	session, ok := l.s.sessions.Session(user)
	if !ok || l.s.current().ShowNotices {
		return session, ok
	}
	return unnoticed{session}, true
}

type unnoticed struct{ enroll.Session }

// Notify tells nobody.
func (unnoticed) Notify(context.Context, enroll.Notice) error { return nil }

// quiet takes the end of the context for what it is.
func quiet(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// now is the best known time: this machine's clock, corrected by central's. The
// engine asks for it with its own lock held, so it takes none of the service's:
// whoever holds that may be waiting for the engine.
func (s *Service) now() time.Time {
	if client := s.clock.Load(); client != nil {
		return time.Now().Add(client.Offset())
	}
	return time.Now().Add(time.Duration(s.offset.Load()))
}

// gather is how long changes are let come together before they are looked at: the
// steps of one enrollment follow each other in milliseconds, and each look builds
// the whole report.
const gather = 100 * time.Millisecond

// followChanges tells watchers, and central management soon after.
func (s *Service) followChanges(ctx context.Context) error {
	for {
		changed := s.engine.Changes()
		s.thrift.Stir()
		s.watchers.tell()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gather):
		}
		s.reportSoon()
		s.correspondence.poke()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// broadcast wakes everybody who listens; nobody can hold it up.
type broadcast struct {
	mu        sync.Mutex
	listeners map[chan struct{}]bool
}

func (b *broadcast) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.listeners {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (b *broadcast) listen(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	if b.listeners == nil {
		b.listeners = map[chan struct{}]bool{}
	}
	b.listeners[c] = true
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, c)
	})
	return c
}
