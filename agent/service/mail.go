package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/platform"
)

// Bounds of what is kept of looks through old mail: places of one user, and all.
const (
	placesKept = 8
	checksKept = 200
)

var (
	_ local.Librarian = (*Service)(nil)
	_ local.Preparer  = (*Service)(nil)
)

// MailChecked keeps what somebody found in his own mail, in place of what he found
// at the same place before. What it says of another's enrollment is not believed.
func (s *Service) MailChecked(_ context.Context, c enroll.MailCheck) error {
	for i, k := range c.Keys {
		if e, ok := s.enrollment(k.Enrollment); !ok || e.Assignment.User != c.User {
			c.Keys[i].Enrollment = ""
		}
	}
	c.At = s.now()
	s.mu.Lock()
	old := s.memory.Mail
	s.memory.Mail = withCheck(old, c)
	err := s.record.SaveSync(s.memory)
	if err != nil {
		s.memory.Mail = old
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("keep what old mail needs: %w", err)
	}
	s.log.Info("old mail looked through", "user", c.User, "messages", c.Messages, "encrypted", c.Encrypted, "opened", c.Opened)
	s.engine.Attach(c.User) // the stores are read again, which can only make it truer
	s.watchers.tell()
	s.reportSoon()
	return nil
}

// UndoMail has put back what mail programs had before the agent came.
func (s *Service) UndoMail(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	err := s.engine.UndoMail(ids, by.Admin)
	if errors.Is(err, enroll.ErrMailRuled) {
		return &local.Error{Reason: local.ReasonRuled, Err: err}
	}
	if err == nil {
		s.log.Info("mail programs are to be as before", "by", by.User, "enrollments", ids)
	}
	return err
}

// ApplyMail has mail programs made ready again.
func (s *Service) ApplyMail(_ context.Context, by platform.Peer, ids []enroll.ID) error {
	s.log.Info("mail programs are to be made ready", "by", by.User, "enrollments", ids)
	return s.engine.ApplyMail(ids)
}

// withCheck adds a check at the end and lets the oldest go where there are too many.
func withCheck(all []enroll.MailCheck, c enroll.MailCheck) []enroll.MailCheck {
	var kept []enroll.MailCheck
	own := 1
	for _, o := range slices.Backward(all) {
		switch {
		case o.User != c.User:
			kept = append(kept, o)
		case o.Path != c.Path && own < placesKept:
			kept = append(kept, o)
			own++
		}
	}
	slices.Reverse(kept)
	kept = append(kept, c)
	return kept[max(0, len(kept)-checksKept):]
}

// mailNow brings what was found up to date with what is in the stores now.
func (s *Service) mailNow(checks []enroll.MailCheck) []enroll.MailCheck {
	if len(checks) == 0 {
		return nil
	}
	all := s.engine.Enrollments()
	now := make([]enroll.MailCheck, 0, len(checks))
	for _, c := range checks {
		if found, ok := s.engine.Inventory(c.User); ok {
			c = c.Seen(found, all)
		}
		now = append(now, c)
	}
	return now
}
