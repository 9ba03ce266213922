package platform

import (
	"context"
	"errors"
	"fmt"

	"smime-agent/platform/internal/win32"
)

func newPrompter() Prompter {
	ways := []Prompter{window{ask: win32.TaskDialog}, window{ask: messageBox}}
	return promptChain{ask: ways, tell: ways[:1]}
}

// window asks in a window of the user's desktop.
type window struct {
	ask func(context.Context, win32.Dialog) (win32.Choice, error)
}

func (w window) Ask(ctx context.Context, q Question) (Answer, error) {
	if !win32.Visible() {
		return "", unsupported("this session has no desktop", nil)
	}
	choice, err := w.ask(ctx, win32.Dialog{
		Title: plainLine(q.Title), Text: plain(q.Text),
		First: plainLine(q.Yes), Second: plainLine(q.Later), Third: plainLine(q.No),
	})
	switch {
	case errors.Is(err, win32.ErrNoDialog):
		return "", unsupported("task dialogs", err)
	case err != nil:
		return "", err
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case choice == win32.First:
		return AnswerYes, nil
	case choice == win32.Third && q.No != "":
		return AnswerNo, nil
	}
	return AnswerLater, nil
}

// messageBox says in the order of its buttons what they mean: their words are
// the system's.
func messageBox(ctx context.Context, d win32.Dialog) (win32.Choice, error) {
	d.Text += "\n"
	for i, word := range []string{d.First, d.Third, d.Second} {
		if word != "" {
			d.Text += fmt.Sprintf("\n%d. %s", i+1, word)
		}
	}
	return win32.MessageBox(ctx, d)
}

func (window) Enter(ctx context.Context, e Entry) (string, error) {
	if !win32.Visible() {
		return "", unsupported("this session has no desktop", nil)
	}
	text, given, err := win32.Enter(ctx, win32.EntryDialog{
		Title: plainLine(e.Title), Text: plain(e.Text), OK: plainLine(e.OK), Cancel: plainLine(e.Cancel), Hidden: e.Secret,
	})
	switch {
	case err != nil:
		return "", err
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case !given:
		return "", fmt.Errorf("%w: the person canceled", ErrDenied)
	}
	return text, nil
}

func (window) Notify(ctx context.Context, n Notice) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !win32.Visible() {
		return unsupported("this session has no desktop", nil)
	}
	if err := win32.Notice(plainLine(n.Title), plain(n.Text)); err != nil {
		return unsupported("the taskbar takes no notice", err)
	}
	return nil
}
