package platform

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// promptChain tries the ways to the person in order; one that cannot work in
// this session answers [ErrUnsupported]. What there is is looked at anew for
// each question: a desktop may come up after the helper.
type promptChain struct {
	// ask and tell differ in order: a question wants a dialog, a notice does not
	// want to be in the way.
	ask, tell []Prompter
}

func (c promptChain) Ask(ctx context.Context, q Question) (Answer, error) {
	if q.Yes == "" {
		return "", errors.New("ask: a question without a word for yes")
	}
	ctx, stop := limit(ctx, q.Timeout)
	defer stop()
	answer, err := first(c.ask, func(p Prompter) (Answer, error) { return p.Ask(ctx, q) })
	if errors.Is(err, errTimeout) {
		return AnswerLater, nil
	}
	if err != nil {
		return "", fmt.Errorf("ask: %w", err)
	}
	return answer, nil
}

func (c promptChain) Enter(ctx context.Context, e Entry) (string, error) {
	ctx, stop := limit(ctx, e.Timeout)
	defer stop()
	text, err := first(c.ask, func(p Prompter) (string, error) { return p.Enter(ctx, e) })
	if errors.Is(err, errTimeout) {
		err = fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if err != nil {
		return "", fmt.Errorf("ask for an entry: %w", err)
	}
	return text, nil
}

func (c promptChain) Notify(ctx context.Context, n Notice) error {
	_, err := first(c.tell, func(p Prompter) (struct{}, error) { return struct{}{}, p.Notify(ctx, n) })
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

func first[T any](ways []Prompter, try func(Prompter) (T, error)) (T, error) {
	var none T
	var reasons []error
	for _, p := range ways {
		answer, err := try(p)
		if err == nil {
			return answer, nil
		}
		if !errors.Is(err, ErrUnsupported) {
			return none, err
		}
		reasons = append(reasons, err)
	}
	return none, errors.Join(reasons...)
}

// errTimeout tells the end of the dialog's own time from that of the caller's
// context.
var errTimeout = errors.New("nobody answered in time")

func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, errTimeout)
}

func unsupported(why string, cause error) error {
	if cause == nil {
		return fmt.Errorf("%w: %s", ErrUnsupported, why)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnsupported, why, cause)
}

// plain makes text safe to show anywhere. Names come from central management
// and from certificates: escape sequences could rewrite a terminal, a NUL ends
// an argument, and bidirectional controls (UAX #9) let a text read otherwise
// than it is.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), r == unicode.ReplacementChar:
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
}

// plainLine is [plain] for what must stay in one line: titles and labels.
func plainLine(s string) string { return strings.Join(strings.Fields(plain(s)), " ") }
