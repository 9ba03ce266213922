package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lease"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

// Mailer hands over mails, and gives an error for each, nil for those that were taken.
type Mailer interface {
	Send(ctx context.Context, messages []mail.Message) []error
}

// Mail is how a server writes mails. Without a Mailer it writes none.
type Mail struct {
	Mailer Mailer
	// From is the sender's address.
	From string
	// Administrator gets the digests; empty means nobody.
	Administrator string
}

// stages are the days before the end at which a reminder is due.
func stages() []int { return []int{7, 30, 60} }

const (
	day = 24 * time.Hour
	// abandoned is how long a device has been silent whose certificate nobody
	// misses, if the mailbox has a later one elsewhere.
	abandoned = 14 * day
	// remindLease is held by the server that reminds. It is prolonged before each
	// batch of mails, so remindHold is how long others wait for one that died.
	remindLease = "reminders.lease"
	remindHold  = 30 * time.Minute
	// mailBatch is how many mails go out before they are noted as sent.
	mailBatch = 20
)

// due is a certificate with a reminder to send.
type due struct {
	entry  *controlv1.LedgerEntry
	stage  int
	locale string
	facts  mail.Certificate
	noted  store.Reminder
}

// Remind sends the reminders that are due: for certificates that end within a
// stage and were not renewed by themselves. Each is sent once for each stage:
// what was sent is noted after the mail server took it, so a crash in between
// sends it again, under the same Message-ID. Where several stages have passed,
// only the last is told. Of several servers one at a time does it, and the next
// finds it done. It gives how many owners were told.
func (s *Server) Remind(ctx context.Context) (told int, err error) {
	if s.mail.Mailer == nil {
		return 0, nil
	}
	if err := s.refresh(""); err != nil {
		return 0, err
	}
	force := s.current.Load()
	if force == nil {
		return 0, nil
	}
	if err := s.reminding.Hold(ctx); err != nil {
		if errors.Is(err, lease.ErrHeld) {
			return 0, nil
		}
		return 0, err
	}
	defer func() { err = errors.Join(err, s.reminding.Release(ctx)) }()
	list, err := s.dueReminders(force.policy)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	for batch := range slices.Chunk(list, mailBatch) {
		if err := s.reminding.Hold(ctx); err != nil {
			return told, err
		}
		n, err := s.tellOwners(ctx, force.policy, batch)
		told += n
		if err != nil {
			return told, err
		}
	}
	if err := s.reminding.Hold(ctx); err != nil {
		return told, err
	}
	return told, s.tellAdministrator(ctx, force.policy, list)
}

func stageOf(left time.Duration) (stage int, ok bool) {
	for _, days := range stages() {
		if left <= time.Duration(days)*day {
			return days, true
		}
	}
	return 0, false
}

func reminderKey(serial ca.Serial, stage int) []byte {
	return binary.BigEndian.AppendUint16(serial[:], uint16(stage))
}

// dueReminders looks through the ledger.
func (s *Server) dueReminders(p *policy.Policy) ([]*due, error) {
	var list []*due
	latest := map[string]time.Time{}
	now := s.now()
	var failed error
	err := ledger.Each(s.store, s.now(), func(tx store.Tx, e *controlv1.LedgerEntry, v *ledger.View) bool {
		if e.GetStatus() != ledger.Valid {
			return true
		}
		end := e.GetNotAfter().AsTime()
		if at := latest[wishKey(e)]; end.After(at) {
			latest[wishKey(e)] = end
		}
		stage, ok := stageOf(end.Sub(now))
		if !ok || len(p.Holders(e.GetMailbox())) == 0 {
			return true
		}
		d := &due{entry: e, stage: stage}
		serial, err := ca.ParseSerial(e.GetReference())
		if err == nil {
			_, err = store.GetJSON(tx, store.Reminders, reminderKey(serial, stage), &d.noted)
		}
		if err != nil {
			failed = err
			return false
		}
		if d.noted.Settled(s.mail.Administrator != "") {
			return true
		}
		d.describe(v, s.lastOf(v), now)
		list = append(list, d)
		return true
	})
	list = slices.DeleteFunc(list, func(d *due) bool {
		gone := d.facts.LastContact.IsZero() || now.Sub(d.facts.LastContact) > abandoned
		return gone && latest[wishKey(d.entry)].After(d.entry.GetNotAfter().AsTime())
	})
	return list, errors.Join(err, failed)
}

// wishKey is the same for certificates of which a person needs one on each device.
func wishKey(e *controlv1.LedgerEntry) string {
	return strings.ToLower(e.GetMailbox()) + "\x00" + e.GetType()
}

// lastOf is the device's last contact; zero for one that may not call any more.
func (s *Server) lastOf(v *ledger.View) time.Time {
	if v.Device.State != store.Admitted {
		return time.Time{}
	}
	if m := s.fleet.peek(v.Device.ID); m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		return later(m.last, v.Last)
	}
	return v.Last
}

func (d *due) describe(v *ledger.View, last, now time.Time) {
	e := d.entry
	d.facts = mail.Certificate{
		Name: e.GetName(), Mailbox: e.GetMailbox(), Serial: e.GetSerial(), Type: e.GetType(), Host: mail.Shown(e.GetHostname()),
		Ends: e.GetNotAfter().AsTime(), LastContact: last,
	}
	d.facts.Days = max(int(d.facts.Ends.Sub(now)/day), 0)
	for _, user := range v.Report.GetUsers() {
		if user.GetUser() == e.GetUser() {
			d.locale, d.facts.Account = user.GetLocale(), mail.Shown(user.GetAccount())
		}
	}
	for _, c := range v.Report.GetCredentials() {
		if c.GetProblem() != nil && strings.EqualFold(c.GetMailbox(), e.GetMailbox()) && c.GetUser() == e.GetUser() {
			d.facts.Problem = mail.Shown(c.GetProblem().GetCode())
		}
	}
	if d.facts.Problem == "" && v.Device.State != store.Admitted {
		d.facts.Problem = "device " + v.Device.State
	}
}

func (s *Server) sender(p *policy.Policy) mail.Sender {
	return mail.Sender{From: s.mail.From, Organization: p.Organization.Name, Contact: p.Contact}
}

// tellOwners sends a batch, and notes what the mail server took, or will never take.
func (s *Server) tellOwners(ctx context.Context, p *policy.Policy, batch []*due) (told int, err error) {
	var open []*due
	var messages []mail.Message
	for _, d := range batch {
		if !d.noted.Owner.IsZero() {
			continue
		}
		m, err := mail.Reminder(s.sender(p), d.facts, d.locale, s.now())
		if err != nil {
			return 0, err
		}
		// The stage and not the day: sent again after a crash, it is the same mail.
		m.ID = fmt.Sprintf("reminder.%s.%d", d.entry.GetSerial(), d.stage)
		open, messages = append(open, d), append(messages, m)
	}
	if len(open) == 0 {
		return 0, nil
	}
	var noted []*due
	defer func() { s.observe.Mails(told, len(messages)-told) }()
	for i, failed := range s.mail.Mailer.Send(ctx, messages) {
		d := open[i]
		switch {
		case failed == nil:
			d.noted.Owner = s.now()
			told++
		case mail.Permanent(failed):
			d.noted.Owner, d.noted.OwnerFailed = s.now(), failed.Error()
		default:
			err = failed
			continue
		}
		noted = append(noted, d)
	}
	return told, errors.Join(s.noteReminders(ctx, noted), err)
}

// tellAdministrator sends one mail on all that an administrator has not heard of.
func (s *Server) tellAdministrator(ctx context.Context, p *policy.Policy, list []*due) error {
	list = slices.DeleteFunc(list, func(d *due) bool { return !d.noted.Administrator.IsZero() })
	if s.mail.Administrator == "" || len(list) == 0 {
		return nil
	}
	facts := make([]mail.Certificate, 0, len(list))
	for _, d := range list {
		if d.noted.OwnerFailed != "" {
			d.facts.Problem = strings.TrimPrefix(d.facts.Problem+"; the owner cannot be reached by mail", "; ")
		}
		facts = append(facts, d.facts)
	}
	id := fmt.Sprintf("digest.%s.%d.%d", list[0].entry.GetSerial(), list[0].stage, len(list))
	m, err := mail.Digest(s.sender(p), s.mail.Administrator, id, facts, s.now())
	if err != nil {
		return err
	}
	if err := s.mail.Mailer.Send(ctx, []mail.Message{m})[0]; err != nil {
		return err
	}
	for _, d := range list {
		d.noted.Administrator = s.now()
	}
	return s.noteReminders(ctx, list)
}

func (s *Server) noteReminders(ctx context.Context, list []*due) error {
	for part := range slices.Chunk(list, revokeChunk) {
		err := s.store.Update(ctx, func(tx store.Tx) error {
			for _, d := range part {
				serial, err := ca.ParseSerial(d.entry.GetReference())
				if err != nil {
					return err
				}
				if err := store.PutJSON(tx, store.Reminders, reminderKey(serial, d.stage), d.noted); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
