package server

import (
	"context"
	"errors"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/challenge"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

func (s *Server) newCodes() *challenge.Codes {
	return &challenge.Codes{
		Store: s.store, Mail: s.mail, Request: ledger.RequestOf, Session: s.sessionOf, Beside: s.background,
		Company: func() (name, contact string, ok bool) {
			force := s.current.Load()
			if force == nil {
				return "", "", false
			}
			return force.policy.Organization.Name, force.policy.Contact, true
		},
		Sent: func(sent, failed int) { s.observe.Mails("code", sent, failed) }, Now: s.now, Log: s.log,
	}
}

// sessionOf gives what a mail says of where its request came from, as far as it is known.
func (s *Server) sessionOf(r *store.Request) (host, locale string) {
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

// Confirm takes a code, see [challenge.Codes.Take].
func (s *Server) Confirm(ctx context.Context, req *controlv1.ConfirmRequest) (*controlv1.ConfirmResponse, error) {
	unknown := refuse(controlv1.Reason_REASON_REFERENCE_UNKNOWN, "This server has no such reference of this device.")
	serial, err := ca.ParseSerial(req.GetReference())
	if err != nil {
		return nil, unknown
	}
	record, err := s.codes.Take(ctx, serial, deviceOf(ctx), req.GetCode())
	switch {
	case errors.Is(err, challenge.ErrUnknown):
		return nil, unknown
	case errors.Is(err, challenge.ErrLength):
		return nil, refuse(controlv1.Reason_REASON_CODE_WRONG, "The code is empty or too long.")
	case errors.Is(err, challenge.ErrExpired):
		return nil, refuse(controlv1.Reason_REASON_CODE_EXPIRED, "The code has expired; another one is mailed.")
	case errors.Is(err, challenge.ErrWrong):
		return nil, refuse(controlv1.Reason_REASON_CODE_WRONG, "The code is not the one that was mailed last for this request.")
	case err != nil:
		return nil, err
	}
	s.log.Info("mailbox code accepted", "device", record.Device, "reference", serial.String())
	outcome, err := s.outcomeNow(ctx, serial, record)
	return &controlv1.ConfirmResponse{Outcome: outcome}, err
}

// drive takes a challenged request as far as it goes: codes that are due are mailed;
// once all mailboxes are confirmed, it is issued or handed on to an administrator.
func (s *Server) drive(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Request, *store.Challenge, error) {
	open, stage, err := s.codes.Drive(ctx, serial, r)
	if err != nil {
		return nil, nil, err
	}
	switch stage {
	case challenge.Confirmed:
		settled, err := s.confirmed(ctx, serial, r)
		return settled, open, err
	case challenge.Failed:
		settled := closed(r)
		settled.State, settled.Refusal = store.RequestRefused, "The mailbox was not confirmed by the codes that were mailed to it."
		return settled, open, s.endChallenge(ctx, serial, settled)
	case challenge.Waiting:
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
