// Package remind tells people by mail of certificates that are about to end and
// that their agents have not renewed by themselves.
package remind

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

const (
	day = 24 * time.Hour
	// abandoned is how long a device has been silent whose certificate nobody
	// misses, if the mailbox has a later one elsewhere.
	abandoned = 14 * day
	// mailBatch is how many mails go out before they are noted as sent.
	mailBatch = 20
	// noteChunk bounds what one transaction notes.
	noteChunk = 200
)

// stages are the days before the end at which a reminder is due.
func stages() []int { return []int{7, 30, 60} }

// Device is where a certificate is.
type Device struct {
	// State is that of the record, such as [store.Admitted].
	State  string
	Report *controlv1.SyncRequest
	// Last is the last contact; zero for a device that may not call any more.
	Last time.Time
}

// Reminders is what sends them.
type Reminders struct {
	Store store.Store
	Mail  mail.Outbox
	// Valid goes through the certificates in force, until visit says false.
	Valid func(visit func(store.Tx, *controlv1.LedgerEntry, Device) bool) error
	// Hold takes or prolongs the right to remind, and says whether it is ours.
	Hold    func(context.Context) (bool, error)
	Release func(context.Context) error
	// Sent counts mails of a kind, "reminder" or "digest".
	Sent func(kind string, sent, failed int)
	Now  func() time.Time
}

// errHeld: another server took the turn over, and goes on.
var errHeld = errors.New("another server reminds")

// Send sends the reminders that are due: for certificates that end within a
// stage and were not renewed by themselves. Each is sent once for each stage:
// what was sent is noted after the mail server took it, so a crash in between
// sends it again, under the same Message-ID. An owner whose mailbox takes nothing
// at the moment is told next time, and holds nobody up. Where several stages have passed,
// only the last is told. Of several servers one at a time does it, and the next
// finds it done. It gives how many owners were told.
func (r *Reminders) Send(ctx context.Context, p *policy.Policy) (told int, err error) {
	if r.Mail.Mailer == nil {
		return 0, nil
	}
	if ours, err := r.Hold(ctx); err != nil || !ours {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Release(ctx)) }()
	list, err := r.due(p)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	var refused error
	for batch := range slices.Chunk(list, mailBatch) {
		if err := r.prolong(ctx); err != nil {
			return told, err
		}
		n, one, err := r.tellOwners(ctx, p, batch)
		told += n
		if refused = cmp.Or(refused, one); err != nil {
			return told, err
		}
	}
	if err := r.prolong(ctx); err != nil {
		return told, err
	}
	return told, errors.Join(refused, r.tellAdministrator(ctx, p, list))
}

func (r *Reminders) prolong(ctx context.Context) error {
	ours, err := r.Hold(ctx)
	if err == nil && !ours {
		err = errHeld
	}
	return err
}

// reminder is a certificate with a reminder to send.
type reminder struct {
	entry  *controlv1.LedgerEntry
	stage  int
	locale string
	facts  mail.Certificate
	noted  store.Reminder
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

// due looks through the certificates.
func (r *Reminders) due(p *policy.Policy) ([]*reminder, error) {
	var list []*reminder
	latest := map[string]time.Time{}
	now := r.Now()
	var failed error
	err := r.Valid(func(tx store.Tx, e *controlv1.LedgerEntry, at Device) bool {
		end := e.GetNotAfter().AsTime()
		if end.After(latest[wishKey(e)]) {
			latest[wishKey(e)] = end
		}
		stage, ok := stageOf(end.Sub(now))
		if !ok || len(p.Holders(e.GetMailbox())) == 0 {
			return true
		}
		d := &reminder{entry: e, stage: stage}
		serial, err := ca.ParseSerial(e.GetReference())
		if err == nil {
			_, err = store.GetJSON(tx, store.Reminders, reminderKey(serial, stage), &d.noted)
		}
		if err != nil {
			failed = err
			return false
		}
		if d.noted.Settled(r.Mail.Administrator != "") {
			return true
		}
		d.describe(at, now)
		list = append(list, d)
		return true
	})
	list = slices.DeleteFunc(list, func(d *reminder) bool {
		gone := d.facts.LastContact.IsZero() || now.Sub(d.facts.LastContact) > abandoned
		return gone && latest[wishKey(d.entry)].After(d.entry.GetNotAfter().AsTime())
	})
	return list, errors.Join(err, failed)
}

// wishKey is the same for certificates of which a person needs one on each device.
func wishKey(e *controlv1.LedgerEntry) string {
	return strings.ToLower(e.GetMailbox()) + "\x00" + e.GetType()
}

func (d *reminder) describe(at Device, now time.Time) {
	e := d.entry
	d.facts = mail.Certificate{
		Name: e.GetName(), Mailbox: e.GetMailbox(), Serial: e.GetSerial(), Type: e.GetType(), Host: mail.Shown(e.GetHostname()),
		Ends: e.GetNotAfter().AsTime(), LastContact: at.Last,
	}
	d.facts.Days = max(int(d.facts.Ends.Sub(now)/day), 0)
	for _, user := range at.Report.GetUsers() {
		if user.GetUser() == e.GetUser() {
			d.locale, d.facts.Account = user.GetLocale(), mail.Shown(user.GetAccount())
		}
	}
	for _, c := range at.Report.GetCredentials() {
		if c.GetProblem() != nil && strings.EqualFold(c.GetMailbox(), e.GetMailbox()) && c.GetUser() == e.GetUser() {
			d.facts.Problem = mail.Shown(c.GetProblem().GetCode())
		}
	}
	if d.facts.Problem == "" && at.State != store.Admitted {
		d.facts.Problem = "device " + at.State
	}
}
