package service

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"smime-agent/agent/control"
	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/state"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

var _ local.Agent = (*Service)(nil)

// Report is the state of everything.
func (s *Service) Report(context.Context) (status.Report, error) {
	s.thrift.Stir() // nearly every call of the local API begins with one
	return status.Build(s.facts(), s.engine.Enrollments(), s.now()), nil
}

// Changes wakes after each change.
func (s *Service) Changes(ctx context.Context) <-chan struct{} { return s.watchers.listen(ctx) }

// Decide takes the person's verdict.
func (s *Service) Decide(_ context.Context, by platform.Peer, ids []enroll.ID, v enroll.Verdict) error {
	for _, id := range ids {
		if _, err := s.engine.Decide("", string(id), v); err != nil {
			return err
		}
		s.log.Info("verdict given", "enrollment", string(id), "user", by.User, "verdict", string(v))
	}
	return nil
}

// Renew starts a new enrollment for each.
func (s *Service) Renew(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	for _, id := range ids {
		reason := enroll.ReasonPerson
		if e, ok := s.enrollment(id); ok && e.Assignment.User != by.User {
			reason = enroll.ReasonAdministrator
		}
		if _, err := s.engine.Renew(enroll.Filter{Target: string(id)}, reason); err != nil {
			return err
		}
	}
	return nil
}

// Confirm hands in a code for each until it fits one: a code is good for the
// request that it was mailed for, and the person need not know which that is.
func (s *Service) Confirm(ctx context.Context, by platform.Peer, ids []enroll.ID, code string) error {
	_, err := s.confirm(ctx, by.User, ids, code)
	return err
}

// Prove proves these soon.
func (s *Service) Prove(_ context.Context, _ platform.Peer, ids []enroll.ID) error {
	for _, id := range ids {
		s.engine.ProveNow(enroll.Filter{Target: string(id)})
	}
	return nil
}

// Sync asks central management now, under the settings as they are now.
func (s *Service) Sync(ctx context.Context) error {
	s.reloadSettings()
	_, err := s.contactNow(ctx)
	s.pokeContact()
	return err
}

// Attached learns of a helper.
func (s *Service) Attached(a local.Attachment) {
	s.thrift.Stir()
	s.remember(a)
	s.log.Info("helper attached", "user", a.Peer.User, "account", a.Account, "helper", a.Hello.Version)
	s.event(eventHelperAttached, outcomeSuccess, "user", a.Peer.User)
	s.engine.Attach(a.Peer.User)
	s.correspondence.attached(a.Peer.User)
	s.watchers.tell()
	s.reportSoon()
}

// Changed learns that a user's stores changed.
func (s *Service) Changed(a local.Attachment) {
	s.thrift.Stir()
	s.engine.Attach(a.Peer.User)
}

// Detached learns that a helper went.
func (s *Service) Detached(a local.Attachment) {
	s.log.Info("helper detached", "user", a.Peer.User, "account", a.Account)
	s.event(eventHelperDetached, outcomeSuccess, "user", a.Peer.User)
	s.engine.Wake()
	s.watchers.tell()
	s.reportSoon()
}

// remember keeps who was ever here: central management gives mailboxes to
// accounts, whether they are logged in or not.
func (s *Service) remember(a local.Attachment) {
	known := state.User{ID: a.Peer.User, Account: a.Account, UPN: a.Hello.UPN, Locale: a.Hello.Locale}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.memory.Users, func(u state.User) bool { return u.ID == known.ID })
	switch {
	case i >= 0 && s.memory.Users[i] == known:
		return
	case i >= 0:
		s.memory.Users = slices.Clone(s.memory.Users)
		s.memory.Users[i] = known
	case len(s.memory.Users) < usersKept:
		s.memory.Users = append(slices.Clone(s.memory.Users), known)
	default:
		s.log.Warn("too many users on this machine", "user", known.ID)
		return
	}
	if err := s.record.SaveSync(s.memory); err != nil {
		s.log.Error("user not kept on record", "user", known.ID, "error", err)
	}
}

// usersKept bounds the accounts of one machine that are reported.
const usersKept = 64

func (s *Service) enrollment(id enroll.ID) (enroll.Enrollment, bool) {
	for _, e := range s.engine.Enrollments() {
		if e.ID == id {
			return e, true
		}
	}
	return enroll.Enrollment{}, false
}

func (s *Service) facts() status.Facts {
	s.mu.Lock()
	checks := s.memory.Mail
	s.mu.Unlock()
	// These ask others, which have locks of their own.
	mail, raised := s.mailNow(checks), s.raised()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := status.Facts{
		Version: s.options.Version, Started: s.started, Starting: s.starting, Mail: mail,
		Device: status.Device{
			ID: s.joined.DeviceID, Name: s.machine.Hostname, Joined: s.joined.DeviceID != "",
			IdentityFrom: s.joined.NotBefore, IdentityEnds: s.joined.NotAfter, Server: s.settings.Server, LastContact: s.memory.Contact,
			NextContact: s.memory.Next, ClockOffset: s.memory.Offset.Seconds(), PolicyRevision: s.memory.Revision,
		},
		Organization: status.Organization{Name: s.settings.Organization},
	}
	if s.policy != nil {
		f.Organization = status.Organization{Name: s.policy.Organization, Contact: s.policy.Contact}
		for _, a := range s.policy.Assignments {
			f.Assigned = append(f.Assigned, a.User)
		}
	}
	for _, a := range s.sessions.Present() {
		f.Users = append(f.Users, status.User{
			ID: a.Peer.User, Account: a.Account, UPN: a.Hello.UPN, Locale: a.Hello.Locale, Helper: a.Hello.Version, Since: a.Since,
		})
	}
	f.Raised = raised
	return f
}

// raised are the conditions of the service itself and those of the way to
// central management.
func (s *Service) raised() []status.Raised {
	var all []status.Raised
	all = append(all, s.correspondence.raised()...)
	for _, c := range s.wrong.list() {
		all = append(all, status.Raised{Code: c.code, Detail: c.detail, Since: c.since})
	}
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil {
		for _, c := range client.Conditions() {
			all = append(all, status.Raised{Code: c.Code, Detail: more(c.Code, c.Text), Since: c.Since, Enrollment: c.EnrollmentID})
		}
	}
	return all
}

// syncInput is what central management is told.
func (s *Service) syncInput() control.SyncInput {
	s.mu.Lock()
	users, revision := s.memory.Users, s.memory.Revision
	if s.policy == nil { // lost with a part of the record; the revision alone would get none
		revision = ""
	}
	s.mu.Unlock()
	in := control.SyncInput{Enrollments: s.engine.Enrollments(), Revision: revision, Rebuild: s.engine.NeedsKnown()}
	in.Published, in.Partners = s.correspondence.report()
	for _, u := range users {
		_, present := s.sessions.Session(u.ID)
		p := control.Presence{User: u.ID, Account: u.Account, UPN: u.UPN, Locale: u.Locale, Present: present}
		if found, ok := s.engine.Inventory(u.ID); ok {
			p.Stores = found.Stores
		}
		in.Users = append(in.Users, p)
	}
	for _, c := range status.Build(s.facts(), in.Enrollments, s.now()).Conditions {
		in.Conditions = append(in.Conditions, control.Condition{
			Code: c.Code, Severity: string(c.Severity), Text: c.Text, Since: c.Since, EnrollmentID: c.Enrollment,
		})
	}
	return in
}

// digest changes when there is something that central management should know
// before the next poll.
func (s *Service) digest() [sha256.Size]byte {
	in := s.syncInput()
	for i, e := range in.Enrollments {
		// Times and attempts change often and tell little.
		e.CSR, e.Changed, e.NextAttempt, e.NextProof, e.Attempts, e.Consent.AskAgain = nil, time.Time{}, time.Time{}, time.Time{}, 0, time.Time{}
		if p := e.Problem; p != nil {
			e.Problem = &enroll.Problem{Code: p.Code}
		}
		if p := e.Proof; p != nil {
			e.Proof = &enroll.Proof{Signs: p.Signs, Decrypts: p.Decrypts, ChainOK: p.ChainOK, Failure: p.Failure}
		}
		in.Enrollments[i] = e
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return [sha256.Size]byte{} // cannot be: these are plain values
	}
	return sha256.Sum256(raw)
}
