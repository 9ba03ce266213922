package service

import (
	"context"
	"errors"
	"slices"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
)

// codeAgain is when a person who put a code off, or did not answer, is asked for
// it again, unless he logs in anew or another request waits for one.
const codeAgain = 2 * time.Hour

// Codes that central management could not be asked about are handed in again.
const (
	codeRetry    = 15 * time.Second
	codeAttempts = 20
)

// codeDialog is the dialog for one user's mailed codes: open, or put off.
type codeDialog struct {
	// close takes an open dialog down; nil if it is not open.
	close context.CancelFunc
	// ids are what waited for a code when it was put off, in the session of since.
	ids   []enroll.ID
	since time.Time
	until time.Time
}

// askForCodes shows a dialog to each user who is there while something of his
// waits for a code that was mailed, and takes it down when nothing does any more,
// be it because the code came by the command line.
func (s *Service) askForCodes(ctx context.Context) {
	changed := s.watchers.listen(ctx)
	dialogs, ended := map[string]*codeDialog{}, make(chan string)
	for {
		next := s.lookForCodes(ctx, dialogs, ended)
		var again <-chan time.Time
		if !next.IsZero() {
			again = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		case user := <-ended:
			d := dialogs[user]
			d.close()
			d.close, d.until = nil, time.Now().Add(codeAgain)
		}
	}
}

// lookForCodes opens and closes dialogs, and says when to look again though
// nothing changes; zero is never.
func (s *Service) lookForCodes(ctx context.Context, dialogs map[string]*codeDialog, ended chan<- string) (next time.Time) {
	waiting := s.waitingForCodes()
	for user, d := range dialogs {
		if d.close != nil && len(waiting[user]) == 0 {
			d.close()
		}
	}
	for _, present := range s.sessions.Present() {
		user := present.Peer.User
		ids, d := waiting[user], dialogs[user]
		if len(ids) == 0 || d != nil && d.close != nil {
			continue
		}
		if d != nil && d.covers(ids, present.Since) && time.Now().Before(d.until) {
			if next.IsZero() || d.until.Before(next) {
				next = d.until
			}
			continue
		}
		dialogCtx, cancel := context.WithCancel(ctx)
		dialogs[user] = &codeDialog{close: cancel, ids: ids, since: present.Since}
		go func() {
			s.enterCodes(dialogCtx, present)
			select {
			case ended <- user:
			case <-ctx.Done():
			}
		}()
	}
	return next
}

// covers says that the person was asked for all of these in this session.
func (d *codeDialog) covers(ids []enroll.ID, since time.Time) bool {
	return d.since.Equal(since) && !slices.ContainsFunc(ids, func(id enroll.ID) bool { return !slices.Contains(d.ids, id) })
}

// waitingForCodes are the enrollments that wait for a mailed code, by user.
func (s *Service) waitingForCodes() map[string][]enroll.ID {
	all := map[string][]enroll.ID{}
	for _, e := range s.engine.Enrollments() {
		if e.State == enroll.Submitted && e.Problem != nil && e.Problem.Code == enroll.CodeChallengePending {
			all[e.Assignment.User] = append(all[e.Assignment.User], e.ID)
		}
	}
	return all
}

// enterCodes asks for one code after the other until nothing waits or the person
// puts it off. It ends with ctx.
func (s *Service) enterCodes(ctx context.Context, at local.Attachment) {
	user, wrong := at.Peer.User, false
	for ctx.Err() == nil {
		ids := s.waitingForCodes()[user]
		if len(ids) == 0 {
			return
		}
		code, err := s.enterCode(ctx, at.Session, ids[0], wrong)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Info("mailbox code not asked for", "user", user, "error", err.Error())
			return
		case code == "":
			s.log.Info("mailbox code put off", "user", user)
			return
		}
		confirmed, err := s.handIn(ctx, user, ids, code)
		if wrong = isWrongCode(err); err != nil && !wrong {
			s.log.Warn("mailbox code not handed in", "user", user, "error", err.Error())
			return
		}
		if err == nil {
			s.awaitCollected(ctx, confirmed)
		}
	}
}

func (s *Service) enterCode(ctx context.Context, session enroll.Session, id enroll.ID, wrong bool) (string, error) {
	e, ok := s.enrollment(id)
	if !ok {
		return "", nil
	}
	q := enroll.CodeQuestion{ID: id, Mailbox: e.Mailbox(), Wrong: wrong}
	s.mu.Lock()
	if s.policy != nil {
		q.Organization, q.Contact = s.policy.Organization, s.policy.Contact
	}
	limit := s.settings.PromptTimeout
	s.mu.Unlock()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return session.EnterCode(ctx, q)
}

// handIn tries again while central management cannot be asked: the person has
// done his part.
func (s *Service) handIn(ctx context.Context, user string, ids []enroll.ID, code string) (confirmed enroll.ID, err error) {
	for range codeAttempts {
		confirmed, err = s.confirm(ctx, user, ids, code)
		if failed, ok := errors.AsType[*enroll.Error](err); !ok || failed.Kind != enroll.Transient {
			return confirmed, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(codeRetry):
		}
	}
	return confirmed, err
}

// collectTime is how long the certificate, or the next question for a code of the
// same request, may take to come after a code was accepted.
const collectTime = 10 * time.Second

// awaitCollected waits until the engine has asked what the accepted code led to.
func (s *Service) awaitCollected(ctx context.Context, id enroll.ID) {
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	for {
		changed := s.engine.Changes()
		if e, ok := s.enrollment(id); !ok || e.State != enroll.Submitted || e.Problem == nil || e.Problem.Code != enroll.CodeChallengePending {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// confirm hands in a code for each until it fits one, and says which: a code is
// good for the request that it was mailed for, and the person need not know
// which that is.
func (s *Service) confirm(ctx context.Context, user string, ids []enroll.ID, code string) (enroll.ID, error) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client == nil {
		return "", &local.Error{Reason: local.ReasonNothing}
	}
	var refused error
	for _, id := range ids {
		e, ok := s.enrollment(id)
		if !ok || e.Reference == "" {
			continue
		}
		if refused = client.Confirm(ctx, e.Reference, code); refused == nil {
			s.log.Info("mailbox code accepted", "enrollment", string(id), "user", user)
			s.engine.Confirmed(e.Reference)
			return id, nil
		}
		if !isWrongCode(refused) {
			return "", refused
		}
	}
	return "", refused
}

// isWrongCode says that central management judged a code, and not in its favor.
func isWrongCode(err error) bool {
	wrong, ok := errors.AsType[*enroll.Error](err)
	return ok && wrong.Code == enroll.CodeChallengePending
}
