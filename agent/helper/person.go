package helper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// grace is what a dialog gets beyond its own timeout before it is taken down.
const grace = 5 * time.Second

// Ask shows one question at a time and waits for the answer until ctx ends: how
// long that is, the service decides, and an end is no "later" of the person's.
// Nobody who could be asked is [enroll.CodeNobodyToAsk].
func (s *Session) Ask(ctx context.Context, q enroll.Question) (enroll.Verdict, error) {
	release, err := s.turns.take(ctx, turnOfQuestion)
	if err != nil {
		return "", s.failure(aboutPerson, "", fmt.Errorf("wait to ask: %w", err))
	}
	defer release()
	answer, err := s.Prompter.Ask(ctx, s.Words.Question(q))
	if err != nil {
		return "", s.failure(aboutPerson, "", fmt.Errorf("ask for consent: %w", err))
	}
	switch answer {
	case platform.AnswerYes:
		return enroll.Approve, nil
	case platform.AnswerNo:
		return enroll.Decline, nil
	default: // only a clear word counts as one
		return enroll.Later, nil
	}
}

// maxCode is more than any code has, in bytes: what is longer is none, and wrong
// when cut too.
const maxCode = 64

// EnterCode shows one dialog at a time and waits for the code until ctx ends. A
// dialog that is closed is a code that is put off: the message stays where it is.
func (s *Session) EnterCode(ctx context.Context, q enroll.CodeQuestion) (string, error) {
	release, err := s.turns.take(ctx, turnOfQuestion)
	if err != nil {
		return "", s.failure(aboutPerson, "", fmt.Errorf("wait to ask for a code: %w", err))
	}
	defer release()
	code, err := s.Prompter.Enter(ctx, s.Words.Code(q))
	switch {
	case err == nil:
		code = strings.TrimSpace(code)
		return code[:min(len(code), maxCode)], nil
	case ctx.Err() == nil && errors.Is(err, platform.ErrDenied):
		return "", nil
	default:
		return "", s.failure(aboutPerson, "", fmt.Errorf("ask for a mailed code: %w", err))
	}
}

// Notify tells the person something.
func (s *Session) Notify(ctx context.Context, n enroll.Notice) error {
	if err := s.Prompter.Notify(ctx, s.Words.Notice(n)); err != nil {
		return s.failure(aboutPerson, "", fmt.Errorf("notify of %s: %w", n.Code, err))
	}
	return nil
}

// PIN asks for a store's PIN; it is a [platform.PINFunc]. The answer goes to the
// store and nowhere else. [platform.ErrLocked] if there is none.
func (s *Session) PIN(ctx context.Context, store string, retry bool) (string, error) {
	if dialogsBarred(ctx) {
		return "", fmt.Errorf("PIN of store %s is not asked for now: %w", store, platform.ErrLocked)
	}
	release, err := s.turns.take(ctx, turnOfPIN)
	if err != nil {
		return "", fmt.Errorf("wait to ask for the PIN of store %s: %w", store, err)
	}
	defer release()
	dialog := s.Words.PIN(store, retry)
	dialog.Secret = true
	dialog.Timeout = s.promptTimeout()
	limited, cancel := context.WithTimeout(ctx, dialog.Timeout+grace)
	defer cancel()
	pin, err := s.Prompter.Enter(limited, dialog)
	switch {
	case err == nil:
		return pin, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("ask for the PIN of store %s: %w", store, ctx.Err())
	default:
		// An end of the dialog's own time is not an end of the task's.
		return "", fmt.Errorf("ask for the PIN of store %s: %w: %v", store, platform.ErrLocked, err) //nolint:errorlint // see above
	}
}

// noDialogs marks a context in which nobody is bothered.
type noDialogs struct{}

func withoutDialogs(ctx context.Context) context.Context {
	return context.WithValue(ctx, noDialogs{}, true)
}

func dialogsBarred(ctx context.Context) bool { return ctx.Value(noDialogs{}) != nil }
