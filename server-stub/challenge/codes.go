package challenge

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/store"
)

// Codes mails codes, and takes them from whoever got them.
type Codes struct {
	Store store.Store
	Mail  mail.Outbox
	// Request finds the record of a serial number; nil if there is none.
	Request func(store.Tx, ca.Serial) (*store.Request, error)
	// Company gives in whose name mails are written and who answers questions; ok is
	// false while nobody has said so.
	Company func() (name, contact string, ok bool)
	// Session gives the name of the machine and the language of the person, as far as
	// they are known.
	Session func(*store.Request) (host, locale string)
	// Beside runs what no call waits for; the context ends with the server.
	Beside func(run func(context.Context))
	// Sent counts mails, once what became of them is on record.
	Sent func(sent, failed int)
	Now  func() time.Time
	Log  *slog.Logger
}

// Stage is how far the confirmation of a request's mailboxes has come.
type Stage int

// The stages.
const (
	// Waiting has codes that are out, or will be.
	Waiting Stage = iota
	// Confirmed has every mailbox confirmed.
	Confirmed
	// Failed has a mailbox that got all its codes and was not confirmed by any.
	Failed
)

// indexHash is how much of the SHA-256 of user and mailbox their key has.
const indexHash = 16

// confirmationKey binds a confirmation to the device and user that brought the
// code, so that another device has to bring its own.
func confirmationKey(device, user, mailbox string) []byte {
	sum := sha256.Sum256([]byte(user + "\x00" + strings.ToLower(mailbox)))
	return append([]byte(device), sum[:indexHash]...)
}

// Unconfirmed gives the mailboxes whose confirmation is missing or too old.
func (c *Codes) Unconfirmed(device, user string, mailboxes []string, now time.Time) (open []string, err error) {
	err = c.Store.View(func(tx store.Tx) error {
		for _, mailbox := range mailboxes {
			var done store.Confirmation
			found, err := store.GetJSON(tx, store.Mailboxes, confirmationKey(device, user, mailbox), &done)
			if err != nil {
				return err
			}
			if !found || now.Sub(done.At) > reuse {
				open = append(open, mailbox)
			}
		}
		return nil
	})
	return open, err
}

// Take judges a code that a device brings for its request, and gives the record of
// that. A wrong one is counted; the right one works once, for the request that it was
// mailed for. Errors are [ErrUnknown], [ErrLength], [ErrWrong] and [ErrExpired], or
// the store's.
func (c *Codes) Take(ctx context.Context, serial ca.Serial, device, code string) (*store.Request, error) {
	if code == "" || len(code) > maxLength {
		return nil, ErrLength
	}
	var record *store.Request
	var verdict error
	hash, now := hashOf(serial, code), c.Now()
	err := c.Store.Update(ctx, func(tx store.Tx) (err error) {
		record, verdict, err = c.take(tx, serial, device, hash, now)
		return err
	})
	if err != nil { // before all else: of a caller that gave up, the write may still come, and set the rest
		return nil, err
	}
	return record, verdict
}

// take judges a code and notes what comes of it.
func (c *Codes) take(tx store.Tx, serial ca.Serial, device string, hash []byte, now time.Time) (record *store.Request, verdict, err error) {
	record, err = c.Request(tx, serial)
	if err != nil {
		return nil, nil, err
	}
	if record == nil || record.Device != device {
		return nil, nil, ErrUnknown
	}
	var open store.Challenge
	found, err := store.GetJSON(tx, store.Challenges, serial[:], &open)
	if err != nil || !found {
		return record, ErrWrong, err
	}
	if verdict = judge(&open, hash, now); verdict == nil {
		if err := noteConfirmed(tx, serial, record, open, now); err != nil {
			return nil, nil, err
		}
	}
	return record, verdict, store.PutJSON(tx, store.Challenges, serial[:], open)
}

func noteConfirmed(tx store.Tx, serial ca.Serial, r *store.Request, c store.Challenge, now time.Time) error {
	for _, m := range c.Mailboxes {
		if !m.Confirmed.Equal(now) {
			continue
		}
		err := store.PutJSON(tx, store.Mailboxes, confirmationKey(r.Device, r.User, m.Mailbox),
			store.Confirmation{At: now, Method: method, Serial: serial.String()})
		if err != nil {
			return err
		}
	}
	return nil
}

// Drive says how far a request's confirmation has come, and mails the codes that are
// due. What follows from the stage is the caller's.
func (c *Codes) Drive(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Challenge, Stage, error) {
	open := &store.Challenge{}
	err := c.Store.View(func(tx store.Tx) error {
		_, err := store.GetJSON(tx, store.Challenges, serial[:], open)
		return err
	})
	if err != nil {
		return nil, Waiting, err
	}
	now := c.Now()
	switch {
	case !slices.ContainsFunc(open.Mailboxes, func(m store.MailboxCode) bool { return m.Confirmed.IsZero() }):
		return open, Confirmed, nil
	case slices.ContainsFunc(open.Mailboxes, func(m store.MailboxCode) bool { return exhausted(m, now) }):
		return open, Failed, nil
	case slices.ContainsFunc(open.Mailboxes, func(m store.MailboxCode) bool { return due(m, now) }):
		open, err = c.renew(ctx, serial, r)
	}
	return open, Waiting, err
}
