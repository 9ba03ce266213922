//go:build linux || darwin

package platform

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// playScript puts a program in osascript's place that keeps its arguments and
// says what it is told to.
func playScript(t *testing.T, play string) (osascript, func() []string) {
	t.Helper()
	dir := t.TempDir()
	path, seen := filepath.Join(dir, "osascript"), filepath.Join(dir, "seen")
	script := "#!/bin/sh\nfor a in \"$@\"; do printf '%s\\0' \"$a\"; done > " + seen + "\n" + play + "\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return osascript{path: path}, func() []string {
		data, err := os.ReadFile(seen)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	}
}

var evil = Question{
	Title: "-e", Text: "\" & (do shell script \"id\") & \"\x1b[2J\u202e", Yes: "Agree", Later: "Later", No: "Decline",
}

// TestOsascriptAsk: texts are arguments behind a fixed word, never part of a
// script, and only a clear word counts as an answer.
func TestOsascriptAsk(t *testing.T) {
	for said, want := range map[string]Answer{"Agree": AnswerYes, "Later": AnswerLater, "Decline": AnswerNo, "": AnswerLater, "Agreed": AnswerLater} {
		o, seen := playScript(t, "echo '"+said+"'")
		got, err := o.Ask(t.Context(), evil)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", said, got, err, want)
		}
		args := seen()
		if len(args) != 8 || args[0] != "-e" || args[1] != scriptAsk || args[2] != "ask" || args[3] != "-e" || args[7] != "Agree" {
			t.Errorf("arguments %q", args)
		}
		if strings.ContainsAny(args[4], "\x1b\u202e") || !strings.Contains(args[4], "do shell script") {
			t.Errorf("shown text %q", args[4])
		}
	}
}

// TestOsascriptTwoButtons: what cannot be put off any more has no such button.
func TestOsascriptTwoButtons(t *testing.T) {
	o, seen := playScript(t, "echo No")
	got, err := o.Ask(t.Context(), Question{Title: "T", Text: "x", Yes: "Yes", No: "No"})
	if err != nil || got != AnswerNo || len(seen()) != 7 {
		t.Errorf("%q, %v, %q", got, err, seen())
	}
}

func TestOsascriptFailures(t *testing.T) {
	canceled, _ := playScript(t, "echo 'execution error: User canceled. (-128)' >&2; exit 1")
	if got, err := canceled.Ask(t.Context(), evil); got != AnswerLater || err != nil {
		t.Errorf("a closed dialog: %q, %v", got, err)
	}
	if _, err := canceled.Enter(t.Context(), Entry{Title: "T", Text: "x"}); !errors.Is(err, ErrDenied) {
		t.Errorf("a closed entry: %v", err)
	}
	nobody, _ := playScript(t, "echo 'execution error: No user interaction allowed. (-1713)' >&2; exit 1")
	if _, err := nobody.Ask(t.Context(), evil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "-1713") {
		t.Errorf("no desktop: %v", err)
	}
	if err := nobody.Notify(t.Context(), Notice{Title: "T", Text: "x"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no desktop: %v", err)
	}
	absent := osascript{path: filepath.Join(t.TempDir(), "osascript")}
	if _, err := absent.Ask(t.Context(), evil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no osascript: %v", err)
	}
}

// TestOsascriptEnds: a question that nobody answers goes away in time.
func TestOsascriptEnds(t *testing.T) {
	o, _ := playScript(t, "exec sleep 600")
	q := evil
	q.Timeout = 200 * time.Millisecond
	chain := promptChain{ask: []Prompter{o}, tell: []Prompter{o}}
	start := time.Now()
	if got, err := chain.Ask(t.Context(), q); got != AnswerLater || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	q.Timeout = 0
	if _, err := chain.Ask(ctx, q); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own end: %v", err)
	}
	if took := time.Since(start); took > 2*time.Minute {
		t.Errorf("it took %v", took)
	}
}

func TestOsascriptEnter(t *testing.T) {
	o, seen := playScript(t, "printf ' 12 34 \\n'")
	got, err := o.Enter(t.Context(), Entry{Title: "T", Text: "x", Secret: true})
	if err != nil || got != " 12 34 " {
		t.Errorf("%q, %v", got, err)
	}
	if args := seen(); args[1] != scriptEnter || args[len(args)-1] != "hidden" || args[5] != "Cancel" || args[6] != "OK" {
		t.Errorf("arguments %q", args)
	}
}
