package platform

import (
	"context"
	"fmt"
	"html"
	"os"
	"strings"
)

// kdialog asks by KDE's dialog program. What its end means was found out with
// kdialog 22.12.3 under Xvfb.
type kdialog struct{}

// Ask always has three buttons: with two, a closed dialog counts as "no".
func (kdialog) Ask(ctx context.Context, q Question) (Answer, error) {
	args := []string{"--title", plainLine(q.Title), "--yes-label", kdialogLabel(q.Yes)}
	if q.No != "" {
		args = append(args, "--no-label", kdialogLabel(q.No))
	}
	if q.Later != "" {
		args = append(args, "--cancel-label", kdialogLabel(q.Later))
	}
	end, err := runDialog(ctx, dialogEnv(os.Environ()), "kdialog", append(args, "--yesnocancel", kdialogText(q.Text))...)
	if err != nil {
		return "", err
	}
	switch end.code {
	case 0:
		return AnswerYes, nil
	case 1:
		if q.No != "" {
			return AnswerNo, nil
		}
		return AnswerLater, nil // the button has to be there, but was no answer
	case 2:
		return AnswerLater, nil
	}
	return "", kdialogFailed(end)
}

func (kdialog) Enter(ctx context.Context, e Entry) (string, error) {
	kind := "--inputbox"
	if e.Secret {
		kind = "--password"
	}
	end, err := runDialog(ctx, dialogEnv(os.Environ()), "kdialog", "--title", plainLine(e.Title), kind, kdialogText(e.Text))
	if err != nil {
		return "", err
	}
	switch end.code {
	case 0:
		return strings.TrimSuffix(end.out, "\n"), nil
	case 1:
		return "", fmt.Errorf("%w: the person closed the dialog", ErrDenied)
	}
	return "", kdialogFailed(end)
}

func (kdialog) Notify(context.Context, Notice) error {
	return unsupported("kdialog shows notices as windows", nil)
}

func kdialogFailed(end dialogEnd) error {
	return unsupported(fmt.Sprintf("kdialog ended with %d: %s", end.code, plainLine(end.warns)), nil)
}

// kdialogText is rich text with everything escaped: left to itself, Qt guesses
// from the text whether it is markup. kdialog then reads "\n" and "\\".
func kdialogText(s string) string {
	s = strings.ReplaceAll(html.EscapeString(plain(s)), "\n", "<br/>")
	return "<qt>" + doubled(s, `\`) + "</qt>"
}

func kdialogLabel(s string) string { return doubled(plainLine(s), "&") }
