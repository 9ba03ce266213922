package service

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"smime-agent/agent/control"
	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
	"smime-agent/agent/status"
)

const (
	// correspondLimit bounds one task of a session here: it keeps the others waiting.
	correspondLimit = 5 * time.Minute
	// firstAgain and lastAgain are the waits after a task that failed.
	firstAgain = time.Minute
	lastAgain  = 6 * time.Hour
	// driftAgain is how often it is looked whether partners' certificates are
	// still where they were filed.
	driftAgain = 24 * time.Hour
)

// correspondence is what lets others write to the people of this machine, and
// them to others: values for the directory, and partners' certificates.
type correspondence struct {
	wake chan struct{}

	mu        sync.Mutex
	partners  state.Partners
	published map[string]state.Publication
	// refused are those whose value central management does not take.
	refused map[enroll.ID]bool
	// filed says, by user, which partners were filed; publishing is when a value
	// that failed is tried again.
	filed      map[string]attempt
	publishing map[enroll.ID]attempt
}

// attempt is when something is done again.
type attempt struct {
	digest   string
	failures int
	again    time.Time
	// trouble is what failed last, nil if nothing did, and since when something does.
	trouble *enroll.Error
	since   time.Time
}

// due says that it is time, or that what is wanted is another.
func (a attempt) due(digest string, now time.Time) bool {
	return a.digest != digest || !now.Before(a.again) || a.again.Sub(now) > driftAgain
}

// failed is the attempt after one that came to nothing, because of err.
func (a attempt) failed(digest string, now time.Time, err error) attempt {
	if a.digest != digest {
		a.failures = 0
	}
	wait := lastAgain
	if a.failures < 12 {
		wait = min(wait, firstAgain<<a.failures)
	}
	next := attempt{digest: digest, failures: a.failures + 1, again: now.Add(wait), trouble: enroll.AsError(err), since: a.since}
	if a.trouble == nil {
		next.since = now
	}
	return next
}

func newCorrespondence(record *state.DB) (*correspondence, error) {
	c := &correspondence{
		wake: make(chan struct{}, 1), refused: map[enroll.ID]bool{}, filed: map[string]attempt{}, publishing: map[enroll.ID]attempt{},
	}
	var err error
	if c.partners, err = record.Partners(); err != nil {
		return nil, err
	}
	c.published, err = record.Publications()
	return c, err
}

// poke has everything looked at.
func (c *correspondence) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// attached: another helper of the user may have another set of stores.
func (c *correspondence) attached(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.filed, user)
	c.poke()
}

// report is what central management is told: which values are held, and which
// set of partners.
func (c *correspondence) report() (published map[enroll.ID][]byte, partners string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	published = make(map[enroll.ID][]byte, len(c.published))
	for id, p := range c.published {
		if !c.refused[enroll.ID(id)] {
			sum := sha256.Sum256(p.Value)
			published[enroll.ID(id)] = sum[:]
		}
	}
	if partners = c.partners.Digest; partners == "" {
		partners = control.NoPartners
	}
	return published, partners
}

// keepCorrespondence does what is due whenever something has changed.
func (s *Service) keepCorrespondence(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.correspondence.wake:
		}
		s.filePartners(ctx)
		s.makePublications(ctx)
	}
}

// takePartners puts a set on record, and then in force.
func (s *Service) takePartners(p *control.Partners) error {
	if p == nil {
		return nil
	}
	c := s.correspondence
	c.mu.Lock()
	next := state.Partners{Digest: p.Digest, Certificates: p.Certificates, Had: c.partners.Had || len(p.Certificates) > 0}
	c.mu.Unlock()
	if err := s.record.SavePartners(next); err != nil {
		return err
	}
	c.mu.Lock()
	c.partners = next
	c.mu.Unlock()
	s.log.Info("partners' certificates in force", "digest", p.Digest, "certificates", len(p.Certificates))
	c.poke()
	return nil
}

// filePartners has the sessions file what is in force.
func (s *Service) filePartners(ctx context.Context) {
	for _, a := range s.sessions.Present() {
		if ctx.Err() == nil {
			s.filePartnersOf(ctx, a.Peer.User, a.Session)
		}
	}
}

func (s *Service) filePartnersOf(ctx context.Context, user string, session enroll.Correspondent) {
	c := s.correspondence
	c.mu.Lock()
	p, before := c.partners, c.filed[user]
	c.mu.Unlock()
	if !p.Had || !before.due(p.Digest, wallClock()) {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, correspondLimit)
	done, err := session.FilePartners(bounded, unended(p.Certificates, s.now()))
	cancel()
	after := attempt{digest: p.Digest, again: wallClock().Add(driftAgain)}
	switch {
	case err != nil:
		after = before.failed(p.Digest, wallClock(), err)
		s.log.Warn("partners' certificates not filed", "user", user, "code", string(enroll.AsError(err).Code), "error", err)
	case len(done.Failures) > 0:
		after = before.failed(p.Digest, wallClock(), done.Failures[0])
		s.log.Warn("partners' certificates not filed everywhere", "user", user,
			"failures", len(done.Failures), "code", string(done.Failures[0].Code), "error", done.Failures[0])
	}
	if done.Filed+done.Withdrawn > 0 {
		s.log.Info("partners' certificates filed", "user", user, "filed", done.Filed, "withdrawn", done.Withdrawn)
	}
	c.mu.Lock()
	c.filed[user] = after
	c.mu.Unlock()
	if (before.trouble == nil) != (after.trouble == nil) {
		s.watchers.tell()
		s.reportSoon()
	}
}

// unended leaves out what has ended: policy may be older than that. What does not
// parse is the session's to refuse.
func unended(all [][]byte, now time.Time) [][]byte {
	return slices.DeleteFunc(slices.Clone(all), func(der []byte) bool {
		c, err := x509.ParseCertificate(der)
		return err == nil && now.After(c.NotAfter)
	})
}

// raised are the users whose mail programs lack partners, or have too many.
func (c *correspondence) raised() []status.Raised {
	if c == nil {
		return nil // the service is only starting
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []status.Raised
	for user, a := range c.filed {
		if a.trouble != nil && a.trouble.Code != enroll.CodeUserAbsent { // who is not there lacks nothing
			all = append(all, status.Raised{Code: status.PartnersNotFiled, User: user, Detail: a.trouble.Hint, Since: a.since})
		}
	}
	slices.SortFunc(all, func(a, b status.Raised) int { return strings.Compare(a.User, b.User) })
	return all
}

// makePublications has the sessions sign what is missing, and forgets what is of
// no use any more.
func (s *Service) makePublications(ctx context.Context) {
	c := s.correspondence
	wanted := map[string]bool{}
	for _, e := range s.engine.Enrollments() {
		w, ok := s.engine.Publishable(e.ID)
		if !ok {
			continue
		}
		wanted[string(e.ID)] = true
		if session, present := s.sessions.Session(e.Assignment.User); present && ctx.Err() == nil {
			s.makePublication(ctx, e, w, session)
		}
	}
	active := s.stillActive() // before the lock: whoever has the engine's may want this one
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.published)
	for id := range c.published {
		if !wanted[id] && !active[enroll.ID(id)] {
			delete(c.published, id)
			delete(c.refused, enroll.ID(id))
			delete(c.publishing, enroll.ID(id))
		}
	}
	if len(c.published) != before {
		s.savePublications()
	}
}

// stillActive: a proof that fails for a day is no reason to forget a value.
func (s *Service) stillActive() map[enroll.ID]bool {
	active := map[enroll.ID]bool{}
	for _, e := range s.engine.Enrollments() {
		active[e.ID] = e.State == enroll.Active && !e.Revoked
	}
	return active
}

func (s *Service) makePublication(ctx context.Context, e enroll.Enrollment, w enroll.PublishWanted, session enroll.Correspondent) {
	c := s.correspondence
	leaf, encryptTo := sumOf(w.Chain[0]), sumOf(w.Chain[0])
	if len(w.EncryptTo) > 0 {
		encryptTo = sumOf(w.EncryptTo[0])
	}
	c.mu.Lock()
	has, before := c.published[string(e.ID)], c.publishing[e.ID]
	c.mu.Unlock()
	if has.Leaf == leaf && has.EncryptTo == encryptTo || !before.due(leaf+encryptTo, wallClock()) {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, correspondLimit)
	value, err := session.Publish(bounded, w)
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.publishing[e.ID] = before.failed(leaf+encryptTo, wallClock(), err)
		s.log.Warn("value for the directory not made", "enrollment", e.ID, "user", e.Assignment.User,
			"code", string(enroll.AsError(err).Code), "error", err)
		return
	}
	delete(c.publishing, e.ID)
	delete(c.refused, e.ID)
	c.published[string(e.ID)] = state.Publication{Value: value, Leaf: leaf, EncryptTo: encryptTo}
	s.savePublications()
	s.log.Info("value for the directory made", "enrollment", e.ID, "user", e.Assignment.User)
	s.pokeContact()
}

func sumOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// savePublications keeps them; what is lost is made again. Callers hold
// correspondence.mu.
func (s *Service) savePublications() {
	if err := s.record.SavePublications(s.correspondence.published); err != nil {
		s.log.Error("values for the directory not kept on record", "error", err)
	}
}

// publisher is central management's client, as far as it takes values.
type publisher interface {
	Publish(ctx context.Context, id enroll.ID, value []byte) error
}

var _ publisher = (*control.Client)(nil)

// handPublications gives central management the values that it wants. One that
// it refuses is not offered again.
func (s *Service) handPublications(ctx context.Context, client publisher, ids []enroll.ID) error {
	c := s.correspondence
	for _, id := range ids {
		c.mu.Lock()
		p, ok := c.published[string(id)]
		ok = ok && !c.refused[id]
		c.mu.Unlock()
		if !ok {
			continue
		}
		err := client.Publish(ctx, id, p.Value)
		if err != nil && enroll.AsError(err).Kind == enroll.Final {
			c.mu.Lock()
			c.refused[id] = true
			c.mu.Unlock()
			s.log.Warn("value for the directory refused", "enrollment", id, "error", err)
			continue
		}
		if err != nil {
			return err
		}
		s.log.Info("value for the directory handed in", "enrollment", id)
	}
	return nil
}
