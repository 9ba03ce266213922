package remind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

// tellOwners sends a batch, and notes what the mail server took, or will never take.
// Refused is what it said to a mail that it may take later, err what keeps it from taking others.
func (r *Reminders) tellOwners(ctx context.Context, p *policy.Policy, batch []*reminder) (told int, refused, err error) {
	var open []*reminder
	var messages []mail.Message
	for _, d := range batch {
		if !d.noted.Owner.IsZero() {
			continue
		}
		m, err := mail.Reminder(r.Mail.Sender(p.Organization.Name, p.Contact), d.facts, d.locale, r.Now())
		if err != nil {
			return 0, nil, err
		}
		// The stage and not the day: sent again after a crash, it is the same mail.
		m.ID = fmt.Sprintf("reminder.%s.%d", d.entry.GetSerial(), d.stage)
		open, messages = append(open, d), append(messages, m)
	}
	if len(open) == 0 {
		return 0, nil, nil
	}
	var noted []*reminder
	defer func() { r.Sent("reminder", told, len(messages)-told) }()
	for i, failed := range r.Mail.Mailer.Send(ctx, messages) {
		d := open[i]
		switch {
		case failed == nil:
			d.noted.Owner = r.Now()
			told++
		case mail.Permanent(failed):
			d.noted.Owner, d.noted.OwnerFailed = r.Now(), failed.Error()
		case mail.Refused(failed):
			refused = failed
			continue
		default:
			err = failed
			continue
		}
		noted = append(noted, d)
	}
	return told, refused, errors.Join(r.note(ctx, noted), err)
}

// tellAdministrator sends one mail on all that an administrator has not heard of.
func (r *Reminders) tellAdministrator(ctx context.Context, p *policy.Policy, list []*reminder) error {
	list = slices.DeleteFunc(list, func(d *reminder) bool { return !d.noted.Administrator.IsZero() })
	if r.Mail.Administrator == "" || len(list) == 0 {
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
	m, err := mail.Digest(r.Mail.Sender(p.Organization.Name, p.Contact), r.Mail.Administrator, id, facts, r.Now())
	if err != nil {
		return err
	}
	if err := r.Mail.Mailer.Send(ctx, []mail.Message{m})[0]; err != nil {
		r.Sent("digest", 0, 1)
		return err
	}
	r.Sent("digest", 1, 0)
	for _, d := range list {
		d.noted.Administrator = r.Now()
	}
	return r.note(ctx, list)
}

func (r *Reminders) note(ctx context.Context, list []*reminder) error {
	for part := range slices.Chunk(list, noteChunk) {
		err := r.Store.Update(ctx, func(tx store.Tx) error {
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
