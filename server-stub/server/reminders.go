package server

import (
	"context"
	"errors"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/lease"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/remind"
	"smime-agent/server-stub/store"
)

// remindHold is how long a server that died keeps the others from reminding.
const remindHold = 30 * time.Minute

func (s *Server) newReminders() *remind.Reminders {
	turn := lease.New(s.store, "reminders.lease", remindHold, s.now)
	return &remind.Reminders{
		Store: s.store, Mail: s.mail, Hold: holding(turn), Release: turn.Release, Sent: s.observe.Mails, Now: s.now,
		Valid: func(visit func(store.Tx, *controlv1.LedgerEntry, remind.Device) bool) error {
			return ledger.Each(s.store, s.now(), func(tx store.Tx, e *controlv1.LedgerEntry, v *ledger.View) bool {
				return e.GetStatus() != ledger.Valid || visit(tx, e, remind.Device{State: v.Device.State, Report: v.Report, Last: s.lastOf(v)})
			})
		},
	}
}

// holding says of a lease whether it is ours.
func holding(turn *lease.Lease) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		err := turn.Hold(ctx)
		if errors.Is(err, lease.ErrHeld) {
			return false, nil
		}
		return err == nil, err
	}
}

// Remind sends the reminders that are due, see [remind.Reminders.Send].
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
	return s.reminders.Send(ctx, force.policy)
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
