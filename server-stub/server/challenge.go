package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/challenge"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

// confirmationKey binds a confirmation to the device and user that brought the
// code, so that another device has to bring its own.
func confirmationKey(device, user, mailbox string) []byte {
	sum := sha256.Sum256([]byte(user + "\x00" + strings.ToLower(mailbox)))
	return append([]byte(device), sum[:ledger.IndexHash]...)
}

// unconfirmed gives the mailboxes whose confirmation is missing or too old.
func (s *Server) unconfirmed(device, user string, mailboxes []string, now time.Time) (open []string, err error) {
	err = s.store.View(func(tx store.Tx) error {
		for _, mailbox := range mailboxes {
			var c store.Confirmation
			found, err := store.GetJSON(tx, store.Mailboxes, confirmationKey(device, user, mailbox), &c)
			if err != nil {
				return err
			}
			if !found || now.Sub(c.At) > challenge.Reuse {
				open = append(open, mailbox)
			}
		}
		return nil
	})
	return open, err
}

// Confirm takes a code. A wrong one is refused and counted; the right one works
// once, for the request that it was mailed for.
func (s *Server) Confirm(ctx context.Context, req *controlv1.ConfirmRequest) (*controlv1.ConfirmResponse, error) {
	unknown := refuse(controlv1.Reason_REASON_REFERENCE_UNKNOWN, "This server has no such reference of this device.")
	serial, err := ca.ParseSerial(req.GetReference())
	if err != nil {
		return nil, unknown
	}
	if req.GetCode() == "" || len(req.GetCode()) > challenge.MaxLength {
		return nil, refuse(controlv1.Reason_REASON_CODE_WRONG, "The code is empty or too long.")
	}
	var record *store.Request
	var verdict error
	device, hash, now := deviceOf(ctx), challenge.Hash(serial, req.GetCode()), s.now()
	err = s.store.Update(ctx, func(tx store.Tx) (err error) {
		record, verdict, err = takeCode(tx, serial, device, hash, now)
		if err == nil && record == nil {
			err = unknown
		}
		return err
	})
	if err != nil { // before all else: of a caller that gave up, the write may still come, and set the rest
		return nil, err
	}
	if verdict != nil {
		return nil, refuseCode(verdict)
	}
	s.log.Info("mailbox code accepted", "device", record.Device, "reference", serial.String())
	outcome, err := s.outcomeNow(ctx, serial, record)
	return &controlv1.ConfirmResponse{Outcome: outcome}, err
}

// takeCode judges a code and notes what comes of it; no record if the device has
// no such request.
func takeCode(tx store.Tx, serial ca.Serial, device string, hash []byte, now time.Time) (record *store.Request, verdict, err error) {
	record, err = ledger.RequestOf(tx, serial)
	if err != nil || record == nil || record.Device != device {
		return nil, nil, err
	}
	var open store.Challenge
	found, err := store.GetJSON(tx, store.Challenges, serial[:], &open)
	if err != nil || !found {
		return record, challenge.ErrWrong, err
	}
	if verdict = challenge.Judge(&open, hash, now); verdict == nil {
		if err := noteConfirmed(tx, serial, record, open, now); err != nil {
			return nil, nil, err
		}
	}
	return record, verdict, store.PutJSON(tx, store.Challenges, serial[:], open)
}

func refuseCode(verdict error) error {
	if errors.Is(verdict, challenge.ErrExpired) {
		return refuse(controlv1.Reason_REASON_CODE_EXPIRED, "The code has expired; another one is mailed.")
	}
	return refuse(controlv1.Reason_REASON_CODE_WRONG, "The code is not the one that was mailed last for this request.")
}

func noteConfirmed(tx store.Tx, serial ca.Serial, r *store.Request, c store.Challenge, now time.Time) error {
	for _, m := range c.Mailboxes {
		if !m.Confirmed.Equal(now) {
			continue
		}
		err := store.PutJSON(tx, store.Mailboxes, confirmationKey(r.Device, r.User, m.Mailbox),
			store.Confirmation{At: now, Method: challenge.Method, Serial: serial.String()})
		if err != nil {
			return err
		}
	}
	return nil
}

// drive takes a challenged request as far as it goes: mails codes that are due,
// or, once all mailboxes are confirmed, issues or hands on to an administrator.
func (s *Server) drive(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Request, *store.Challenge, error) {
	open := &store.Challenge{}
	err := s.store.View(func(tx store.Tx) error {
		_, err := store.GetJSON(tx, store.Challenges, serial[:], open)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	now := s.now()
	switch {
	case !slices.ContainsFunc(open.Mailboxes, func(m store.MailboxCode) bool { return m.Confirmed.IsZero() }):
		settled, err := s.confirmed(ctx, serial, r)
		return settled, open, err
	case slices.ContainsFunc(open.Mailboxes, func(m store.MailboxCode) bool { return challenge.Exhausted(m, now) }):
		settled := closed(r)
		settled.State, settled.Refusal = store.RequestRefused, "The mailbox was not confirmed by the codes that were mailed to it."
		return settled, open, s.endChallenge(ctx, serial, settled)
	case slices.ContainsFunc(open.Mailboxes, func(m store.MailboxCode) bool { return challenge.Due(m, now) }):
		open, err = s.mailCodes(ctx, serial, r)
		return r, open, err
	}
	return r, open, nil
}

// confirmed issues, or waits for an administrator where policy wants both.
func (s *Server) confirmed(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Request, error) {
	_, grant, err := s.waitingGrant(r)
	if err != nil {
		return nil, err
	}
	settled := *r
	if grant.Rule.Approval == policy.Administrator {
		settled.State = store.RequestPending
		return &settled, s.store.Update(ctx, func(tx store.Tx) error {
			if err := stillIn(tx, serial, store.RequestChallenge); err != nil {
				return err
			}
			if err := tx.Put(store.Certificates, serial[:], settled.Encode()); err != nil {
				return err
			}
			return tx.Put(store.Pending, serial[:], []byte{1})
		})
	}
	issued, err := s.issueWaiting(ctx, serial, r)
	if err != nil {
		return nil, err
	}
	return issued, s.endChallenge(ctx, serial, issued)
}

// endChallenge files how it ended. Of two calls that end it at once, the second
// is told to come back, and finds what the first one filed.
func (s *Server) endChallenge(ctx context.Context, serial ca.Serial, settled *store.Request) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		if err := stillIn(tx, serial, store.RequestChallenge); err != nil {
			return err
		}
		return conclude(tx, serial, settled)
	})
}

func stillIn(tx store.Tx, serial ca.Serial, state string) error {
	now, err := ledger.RequestOf(tx, serial)
	if err != nil {
		return err
	}
	if now == nil || now.State != state {
		return refuse(controlv1.Reason_REASON_UNAVAILABLE, "The request was settled by another call just now; collect again.")
	}
	return nil
}

// mailCodes makes a new code for each mailbox that is due, files their hashes,
// and mails them without holding up the call.
func (s *Server) mailCodes(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Challenge, error) {
	var codes map[string]string
	var open store.Challenge
	now := s.now()
	err := s.store.Update(ctx, func(tx store.Tx) error {
		codes, open = map[string]string{}, store.Challenge{}
		if _, err := store.GetJSON(tx, store.Challenges, serial[:], &open); err != nil {
			return err
		}
		for i := range open.Mailboxes {
			m := &open.Mailboxes[i]
			if !challenge.Due(*m, now) {
				continue
			}
			code := challenge.New()
			codes[m.Mailbox] = code
			m.Hash, m.Expires, m.Tried, m.Sent, m.Wrong = challenge.Hash(serial, code), now.Add(challenge.Life), now, time.Time{}, 0
		}
		return store.PutJSON(tx, store.Challenges, serial[:], open)
	})
	if err != nil {
		return nil, err
	}
	if len(codes) > 0 {
		s.background(func(ctx context.Context) { s.sendCodes(ctx, serial, r, codes, open) })
	}
	return &open, nil
}

// sendCodes mails each code to its mailbox alone, and notes what the mail server took.
func (s *Server) sendCodes(ctx context.Context, serial ca.Serial, r *store.Request, codes map[string]string, c store.Challenge) {
	ctx, cancel := context.WithTimeout(ctx, challenge.SendTime)
	defer cancel()
	force := s.current.Load()
	if force == nil || s.mail.Mailer == nil {
		s.log.Error("mailbox codes cannot be mailed: no mail server is set", "reference", serial.String())
		return
	}
	host, locale := s.whereAndHow(r)
	var messages []mail.Message
	for _, m := range c.Mailboxes {
		if codes[m.Mailbox] == "" {
			continue
		}
		id := fmt.Sprintf("code.%s.%d.%s", serial, m.Mails+1, rand.Text()[:8])
		message, err := mail.Code(s.mail.Sender(force.policy.Organization.Name, force.policy.Contact), m.Mailbox, codes[m.Mailbox], host, locale, id, m.Expires, s.now())
		if err != nil {
			s.log.Error("mailbox code cannot be written", "error", err)
			return
		}
		messages = append(messages, message)
	}
	var sent, lost []string
	defer func() { s.observe.Mails(len(sent), len(messages)-len(sent)) }()
	for i, err := range s.mail.Mailer.Send(ctx, messages) {
		switch {
		case err == nil:
			sent = append(sent, messages[i].To)
			continue
		case mail.Permanent(err):
			lost = append(lost, messages[i].To)
		}
		s.log.Error("mailbox code cannot be mailed", "reference", serial.String(), "mailbox", messages[i].To, "error", err)
	}
	if err := s.noteMailed(context.WithoutCancel(ctx), serial, sent, lost); err != nil {
		s.log.Error("mailed code cannot be noted", "reference", serial.String(), "error", err)
	}
}

func (s *Server) whereAndHow(r *store.Request) (host, locale string) {
	_ = s.store.View(func(tx store.Tx) error { // without them the mail says less
		v := ledger.ViewOf(tx, r.Device, map[string]*ledger.View{})
		host = mail.Shown(v.Device.Hostname)
		for _, user := range v.Report.GetUsers() {
			if user.GetUser() == r.User {
				locale = user.GetLocale()
			}
		}
		return nil
	})
	return host, locale
}

// noteMailed counts the codes that were mailed, or that the mail server will never
// take. One that it cannot take at the moment costs the mailbox none of its codes.
func (s *Server) noteMailed(ctx context.Context, serial ca.Serial, sent, lost []string) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		var c store.Challenge
		if _, err := store.GetJSON(tx, store.Challenges, serial[:], &c); err != nil {
			return err
		}
		for i := range c.Mailboxes {
			m := &c.Mailboxes[i]
			took := slices.Contains(sent, m.Mailbox)
			if took {
				m.Sent = s.now()
			}
			if took || slices.Contains(lost, m.Mailbox) {
				m.Mails++
			}
		}
		return store.PutJSON(tx, store.Challenges, serial[:], c)
	})
}
