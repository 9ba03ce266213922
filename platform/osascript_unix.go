//go:build linux || darwin

package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// osascript asks and tells by dialogs of macOS. The scripts are fixed; what they
// show is handed to them as arguments (on run argv), so that no text can become
// part of a script. Only macOS has the program; the file is for both systems so
// that the tests run on either.
type osascript struct {
	// path is absolute: a search path could lead elsewhere.
	path string
}

// The scripts. Their first argument is a fixed word: osascript(1) would take an
// argument that begins with "-" for an option if it came first.
const (
	scriptAsk = `on run argv
	set shown to display dialog (item 3 of argv) with title (item 2 of argv) buttons (items 4 thru -1 of argv) default button (item -1 of argv)
	return button returned of shown
end run`
	scriptEnter = `on run argv
	set shown to display dialog (item 3 of argv) with title (item 2 of argv) buttons {item 4 of argv, item 5 of argv} default button (item 5 of argv) default answer "" hidden answer (item 6 of argv is "hidden")
	if button returned of shown is not (item 5 of argv) then error number -128
	return text returned of shown
end run`
	scriptNotify = `on run argv
	display notification (item 3 of argv) with title (item 2 of argv)
end run`
)

// Ask shows the answers from left to right: no, later, yes; the last is the
// default. A dialog has at most three buttons (AppleScript Language Guide).
func (o osascript) Ask(ctx context.Context, q Question) (Answer, error) {
	args := []string{plainLine(q.Title), plain(q.Text)}
	var answers []Answer
	for _, b := range []struct {
		word   string
		answer Answer
	}{{q.No, AnswerNo}, {q.Later, AnswerLater}, {q.Yes, AnswerYes}} {
		if b.word != "" {
			args, answers = append(args, plainLine(b.word)), append(answers, b.answer)
		}
	}
	said, err := o.run(ctx, scriptAsk, "ask", args...)
	if errors.Is(err, errCanceled) {
		return AnswerLater, nil
	}
	if err != nil {
		return "", err
	}
	for i, answer := range answers {
		if said == args[2+i] {
			return answer, nil
		}
	}
	return AnswerLater, nil // only a clear word counts as one
}

// Enter gives what was typed; a dialog that is closed is [ErrDenied].
func (o osascript) Enter(ctx context.Context, e Entry) (string, error) {
	ok, cancel, kind := e.OK, e.Cancel, "shown"
	if ok == "" {
		ok = "OK"
	}
	if cancel == "" {
		cancel = "Cancel"
	}
	if e.Secret {
		kind = "hidden"
	}
	text, err := o.run(ctx, scriptEnter, "enter", plainLine(e.Title), plain(e.Text), plainLine(cancel), plainLine(ok), kind)
	if errors.Is(err, errCanceled) {
		return "", fmt.Errorf("%w: the person canceled", ErrDenied)
	}
	return text, err
}

// Notify shows a message that goes away by itself.
func (o osascript) Notify(ctx context.Context, n Notice) error {
	_, err := o.run(ctx, scriptNotify, "notify", plainLine(n.Title), plain(n.Text))
	return err
}

// errCanceled is AppleScript's error -128: the person closed the dialog.
var errCanceled = errors.New("canceled")

// run gives what the script returned, without the line's end that osascript
// adds. The end of ctx takes the dialog down: it is drawn by this very process.
func (o osascript) run(ctx context.Context, script, word string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, o.path, append([]string{"-e", script, word}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err == nil:
		return strings.TrimSuffix(out.String(), "\n"), nil
	case strings.Contains(complaint.String(), "(-128)"):
		return "", errCanceled
	default:
		// No desktop, as over ssh (-1713), or no osascript: nobody can be asked so.
		return "", unsupported("osascript: "+plainLine(complaint.String()), err)
	}
}
