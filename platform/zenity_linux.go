package platform

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// zenity asks by GNOME's dialog program. What its end means was found out with
// zenity 3.44.0 under Xvfb.
type zenity struct{}

// Ask makes every button an extra one, for these print their label. The exit
// code alone could not be trusted: "no" and a closed dialog are both 1, and a
// window that was destroyed is 0, as "yes" is.
func (zenity) Ask(ctx context.Context, q Question) (Answer, error) {
	args := []string{"--question", "--switch", "--no-markup", "--title=" + plainLine(q.Title), "--text=" + plain(q.Text)}
	// The first button has the focus, so a stray Enter must not consent.
	labels := map[string]Answer{}
	for _, b := range []struct {
		label  string
		answer Answer
	}{{q.Later, AnswerLater}, {q.No, AnswerNo}, {q.Yes, AnswerYes}} {
		if b.label == "" {
			continue
		}
		label := doubled(plainLine(b.label), "_")
		if _, twice := labels[label]; twice {
			return "", fmt.Errorf("two answers have the label %q", b.label)
		}
		labels[label] = b.answer
		args = append(args, "--extra-button="+label)
	}
	end, err := runZenity(ctx, args)
	if err != nil {
		return "", err
	}
	if answer, ok := labels[strings.TrimSuffix(end.out, "\n")]; ok {
		return answer, nil
	}
	return AnswerLater, nil
}

func (zenity) Enter(ctx context.Context, e Entry) (string, error) {
	// The label of an entry shows markup as it is, but takes "_" for a mark; and it
	// does not break lines, so that a long text would make a window wider than the screen.
	args := []string{"--entry", "--title=" + plainLine(e.Title), "--text=" + doubled(folded(plain(e.Text), entryColumns), "_")}
	if e.Secret {
		args = append(args, "--hide-text")
	}
	if e.OK != "" {
		args = append(args, "--ok-label="+doubled(plainLine(e.OK), "_"))
	}
	if e.Cancel != "" {
		args = append(args, "--cancel-label="+doubled(plainLine(e.Cancel), "_"))
	}
	end, err := runZenity(ctx, args)
	if err != nil {
		return "", err
	}
	// A destroyed window ends with 0 too, but only OK prints a line.
	text, ok := strings.CutSuffix(end.out, "\n")
	if end.code != 0 || !ok {
		return "", fmt.Errorf("%w: the person closed the dialog", ErrDenied)
	}
	return text, nil
}

func (zenity) Notify(context.Context, Notice) error {
	return unsupported("zenity shows notices through the notification service only", nil)
}

// entryColumns is about the width of zenity's questions, which break lines.
const entryColumns = 64

func runZenity(ctx context.Context, args []string) (dialogEnd, error) {
	end, err := runDialog(ctx, dialogEnv(os.Environ()), "zenity", args...)
	if err == nil && end.code > 5 {
		// The environment may name a locale that is not installed. Then the C library
		// falls back to ASCII, and zenity refuses any other letter.
		end, err = runDialog(ctx, append(dialogEnv(os.Environ()), "LC_ALL=C.UTF-8"), "zenity", args...)
	}
	if err != nil {
		return end, err
	}
	// 255: an option that this version does not know. 1 is a closed dialog, but
	// also a display that cannot be reached, which only the warning tells.
	if end.code > 5 || strings.Contains(end.warns, "open display") {
		return end, unsupported(fmt.Sprintf("zenity ended with %d: %s", end.code, plainLine(end.warns)), nil)
	}
	return end, nil
}
