package service

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"smime-agent/agent/control"
	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

const (
	// tick is how often settings and wall-clock deadlines are looked at, beside
	// each time that the machine woke or its clock was set; watchedTick, where the
	// system tells of changed settings.
	tick        = time.Minute
	watchedTick = 10 * time.Minute
	// engineSleep is how long the engine sleeps if nobody wakes it; keepTime does.
	engineSleep = time.Hour
	// firstRetry is the first bound of the waits after a failed contact.
	firstRetry = 5 * time.Second
	// settle is how long changes are gathered before they are reported.
	settle = 500 * time.Millisecond
	// hold is how long a call is held open while an answer is awaited.
	hold = 55 * time.Second
	// awaitFloor is the shortest time between two held calls.
	awaitFloor = 2 * time.Second
	// ordersKept is how many orders are remembered as done.
	ordersKept = 64
)

// keepTime has everybody look at the wall clock and the settings now and then,
// and at the settings when the system tells of a change. It is the only thing
// that wakes an idle service.
func (s *Service) keepTime(ctx context.Context) {
	every := tick
	var changed <-chan struct{} // nil never has a value
	watch, err := platform.WatchFiles()
	if err == nil {
		if watch.Enough() {
			every = watchedTick
		}
		defer func() { _ = watch.Close() }() // nobody is left to be told
		changed = watch.Changed()
		watch.Follow(s.settingsPaths())
	}
	ticks := platform.Ticks(ctx, every)
	for {
		select {
		case _, open := <-ticks:
			if !open {
				return
			}
			s.engine.Wake()
			s.correspondence.poke()
		case <-changed:
			time.Sleep(gather) // a change is several events
		}
		if watch != nil {
			watch.Follow(s.settingsPaths())
		}
		select {
		case s.ticked <- struct{}{}:
		default:
		}
	}
}

// settingsPaths are all places that settings come from, and files that they name.
func (s *Service) settingsPaths() []string {
	c := s.current()
	return append(s.options.Sources.Paths(), c.ServerCA, c.JoinTokenFile, c.ProxyPasswordFile)
}

// wallClock leaves out the monotonic reading, which stands still while the
// machine sleeps.
func wallClock() time.Time { return time.Now().Round(0) }

// keepContact asks central management when it is due, until ctx ends.
func (s *Service) keepContact(ctx context.Context) error {
	next := wallClock()
	var awaited chan bool
	for {
		s.reloadSettings()
		if !wallClock().Before(next) {
			wait := s.contact(ctx) // from its end on, not from its beginning
			next = wallClock().Add(wait)
			if awaited == nil {
				awaited = s.await(ctx)
			}
		}
		timer := time.NewTimer(max(next.Sub(wallClock()), 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case sync := <-awaited:
			if awaited = nil; sync {
				next = wallClock()
			} else {
				awaited = s.await(ctx)
			}
		case <-s.poke:
			if soon := s.soonest(); soon.Before(next) {
				next = soon
			}
		case <-s.ticked:
		case <-timer.C:
		}
		timer.Stop()
		next = notLaterThan(next, wallClock().Add(longestWait))
	}
}

// longestWait bounds how far away a deadline may be: the clock may have been
// set back by years.
const longestWait = 25 * time.Hour

func notLaterThan(t, limit time.Time) time.Time {
	if t.After(limit) {
		return limit
	}
	return t
}

// burst is how many contacts may follow each other without the floor between them.
const burst = 12

// soonest is when a change may be reported: a little later, so that changes
// gather, and not more often than settings allow. After a failure only the
// backoff decides.
func (s *Service) soonest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures > 0 {
		return wallClock().Add(longestWait)
	}
	// A burst is allowed, so that a first enrollment does not wait at each turn;
	// in the long run the floor holds.
	wait := settle
	if lacking := 1 - s.pace.Tokens(); lacking > 0 {
		wait = max(wait, time.Duration(lacking*float64(s.settings.SyncFloor)))
	}
	return wallClock().Add(wait)
}

// reportSoon has central management told of a change, if it is one that it is told of.
func (s *Service) reportSoon() {
	digest := s.digest()
	s.mu.Lock()
	changed := digest != s.reported
	s.mu.Unlock()
	if changed {
		s.pokeContact()
	}
}

func (s *Service) pokeContact() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// contact asks central management and gives the wait until the next time.
func (s *Service) contact(ctx context.Context) time.Duration {
	s.pace.Allow() // counts; when it is due is decided before
	wait, err := s.contactNow(ctx)
	if err == nil {
		return max(wait, s.current().SyncFloor)
	}
	if ctx.Err() != nil {
		return 0
	}
	s.mu.Lock()
	n := s.failures
	s.mu.Unlock()
	s.log.Warn("central management not reached", "failures", n, "error", err)
	return s.retryIn(n, enroll.AsError(err).RetryAfter)
}

// contactNow joins if need be, renews the identity if it is due, reports what is
// here, takes what is to be done, and remembers how that went. It gives central
// management's wish for the next contact.
func (s *Service) contactNow(ctx context.Context) (time.Duration, error) {
	s.contacting.Lock()
	defer s.contacting.Unlock()
	s.thrift.Stir()
	wait, err := s.exchange(ctx)
	if err != nil && ctx.Err() != nil {
		return 0, err
	}
	s.showContact(err)
	s.mu.Lock()
	s.starting = false
	if err != nil {
		s.failures++
	} else {
		s.failures = 0
	}
	s.mu.Unlock()
	if err == nil {
		s.engine.Reachable()
	}
	return wait, err
}

// retryIn is exponential with full jitter in its upper half, so that a fleet
// spreads and a lone machine is not stuck at short waits.
func (s *Service) retryIn(failures int, wished time.Duration) time.Duration {
	return retryWait(s.current().RetryCap, failures, wished)
}

func retryWait(bound time.Duration, failures int, wished time.Duration) time.Duration {
	if failures < 20 {
		bound = min(bound, firstRetry<<(failures-1))
	}
	wait := bound/2 + rand.N(bound/2+1) //nolint:gosec // jitter is no secret
	return max(wait, min(wished, longestWait))
}

func (s *Service) exchange(ctx context.Context) (time.Duration, error) {
	client, err := s.controlClient()
	if err != nil {
		return 0, err
	}
	joined, err := client.EnsureJoined(ctx)
	if err != nil {
		s.joinFailed(err)
		return 0, err
	}
	s.takeJoined(joined)
	if err := s.renewIdentity(ctx, client); err != nil {
		return 0, err
	}
	return s.sync(ctx, client)
}

func (s *Service) joinFailed(err error) {
	if e := enroll.AsError(err); e.Code == control.CodeTokenRefused || e.Code == control.CodeDeviceRefused {
		s.mu.Lock()
		again := s.refusedFor == e.Hint
		s.refusedFor = e.Hint
		s.mu.Unlock()
		if !again {
			s.event(eventJoinRefused, outcomeFailure, "code", string(e.Code), "detail", e.Hint)
		}
	}
}

func (s *Service) takeJoined(j control.Joined) {
	s.mu.Lock()
	s.joined = j
	s.refusedFor = ""
	s.mu.Unlock()
	s.forgetHandedToken()
	if j.New {
		s.log.Info("joined central management", "device_id", j.DeviceID)
		s.event(eventJoined, outcomeSuccess)
		s.forgetToken()
	}
}

func (s *Service) renewIdentity(ctx context.Context, client *control.Client) error {
	renewed, err := client.RenewIdentity(ctx)
	if err != nil {
		return err
	}
	if renewed {
		s.event(eventIdentityRenewed, outcomeSuccess)
		joined, err := client.EnsureJoined(ctx)
		if err != nil {
			return err
		}
		s.takeJoined(joined)
	}
	return nil
}

// sync reports what is here and takes what is to be done.
func (s *Service) sync(ctx context.Context, client *control.Client) (time.Duration, error) {
	digest := s.digest()
	in := s.syncInput()
	out, err := client.Sync(ctx, in)
	if err != nil {
		return 0, err
	}
	if err := s.take(client, out, in.Rebuild); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.reported = digest
	s.mu.Unlock()
	if err := s.handPublications(ctx, client, out.Publish); err != nil {
		return 0, err
	}
	return out.NextSync, s.sendEvents(ctx, client)
}

// take puts an answer into effect, then on record: what was not recorded comes
// again, and does no harm twice.
func (s *Service) take(client *control.Client, out control.SyncResult, rebuilt bool) error {
	if out.Policy != nil {
		if err := s.takePolicy(*out.Policy); err != nil {
			return err
		}
	}
	if err := s.takePartners(out.Partners); err != nil {
		return err
	}
	if rebuilt {
		if err := s.engine.Restore(known(out.Known)); err != nil {
			return err
		}
		s.rebuilt()
	}
	done, err := s.obeyAll(out.Orders)
	if err != nil {
		return err
	}
	s.engine.Ready(out.Ready)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.Offset, s.memory.Contact, s.memory.Next = out.Offset, client.LastContact(), time.Now().Add(out.NextSync)
	s.memory.Orders = done
	if out.Policy != nil {
		s.memory.Revision = out.Policy.Revision
	}
	return s.record.SaveSync(s.memory)
}

// obeyAll does the orders that are not done yet, and gives the list of those that are.
func (s *Service) obeyAll(orders []control.Order) ([]string, error) {
	s.mu.Lock()
	done := slices.Clone(s.memory.Orders)
	s.mu.Unlock()
	for _, o := range orders {
		if slices.Contains(done, o.ID) {
			continue
		}
		if err := s.obey(o); err != nil {
			return nil, err
		}
		done = append(done, o.ID)
	}
	return done[max(0, len(done)-ordersKept):], nil
}

func (s *Service) takePolicy(p enroll.Policy) error {
	if err := s.record.SavePolicy(p); err != nil {
		return err
	}
	if err := s.engine.Apply(p); err != nil {
		return err
	}
	s.mu.Lock()
	before := s.policy
	s.policy = &p
	s.mu.Unlock()
	if before == nil || before.Revision != p.Revision {
		s.log.Info("policy in force", "revision", p.Revision, "assignments", len(p.Assignments))
		s.event(eventPolicyChanged, outcomeSuccess, "detail", "revision "+p.Revision)
		s.trustAnchors(p)
	}
	s.watchers.tell()
	return nil
}

// obey does what central management orders once. An order for an enrollment
// that is gone is done.
func (s *Service) obey(o control.Order) error {
	var err error
	switch o.Kind {
	case control.OrderRenew:
		_, err = s.engine.Renew(enroll.Filter{Target: string(o.Enrollment)}, enroll.ReasonAdministrator)
	case control.OrderRevoked:
		err = s.engine.Revoked(o.Enrollment, o.Reason, o.At)
	case control.OrderProve:
		s.engine.ProveNow(enroll.Filter{})
	}
	if errors.Is(err, enroll.ErrNoneFits) {
		s.log.Warn("order fits no enrollment", "order", o.ID, "kind", string(o.Kind), "enrollment", string(o.Enrollment))
		return nil
	}
	return err
}

// sendEvents empties the outbox.
func (s *Service) sendEvents(ctx context.Context, client *control.Client) error {
	for {
		pending, err := s.record.Pending(reportBatch)
		if err != nil || len(pending) == 0 {
			return err
		}
		events := make([]control.AuditEvent, 0, len(pending))
		for _, p := range pending {
			events = append(events, control.AuditEvent{ID: p.ID, Event: p.Event})
		}
		recorded, err := client.Report(ctx, events)
		if forget := s.record.Forget(recorded...); forget != nil {
			return errors.Join(err, forget)
		}
		if err != nil || len(recorded) == 0 {
			return err
		}
	}
}

// await holds a call open while an answer is awaited. The channel says when the
// call is over, and whether there is reason to sync; nil if nothing is awaited.
func (s *Service) await(ctx context.Context) chan bool {
	references := s.pending()
	s.mu.Lock()
	client, revision, failures := s.client, s.memory.Revision, s.failures
	s.mu.Unlock()
	if client == nil || len(references) == 0 || failures > 0 {
		return nil
	}
	done := make(chan bool, 1)
	go func() {
		// An answer that is there already must not make this a busy loop.
		slow := time.NewTimer(awaitFloor)
		defer slow.Stop()
		got, err := client.Await(ctx, hold, revision, references)
		if err != nil {
			s.log.Info("held call ended", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(s.retryIn(3, enroll.AsError(err).RetryAfter)):
			}
			done <- true
			return
		}
		s.engine.Ready(got.Ready)
		select {
		case <-ctx.Done():
		case <-slow.C:
		}
		done <- got.Sync
	}()
	return done
}

// pending are the references whose answer is awaited.
func (s *Service) pending() []string {
	var references []string
	for _, e := range s.engine.Enrollments() {
		if e.State == enroll.Submitted && e.Reference != "" {
			references = append(references, e.Reference)
		}
	}
	return references
}

func known(from []control.Known) []enroll.Known {
	all := make([]enroll.Known, 0, len(from))
	for _, k := range from {
		all = append(all, enroll.Known(k))
	}
	return all
}
