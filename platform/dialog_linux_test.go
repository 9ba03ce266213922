package platform_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/platform"
)

// noSession takes every way to a person from this process's session.
func noSession(t *testing.T) {
	t.Helper()
	for _, name := range []string{"DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, "")
	}
}

// only leaves one dialog program, beside what drives it.
func only(t *testing.T, program string) {
	t.Helper()
	needProgram(t, program, "Xvfb", "xdotool")
	dir := t.TempDir()
	for _, name := range []string{program, "xdotool"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	display(t)
	t.Setenv("PATH", dir)
}

// display gives the test a screen of its own.
func display(t *testing.T) {
	t.Helper()
	noSession(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{write}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	write.Close()
	number, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DISPLAY", ":"+strings.TrimSpace(number))
}

// person uses keyboard and mouse once the window is there. Without a window
// manager the keys go where the mouse is.
func person(t *testing.T, title string, steps ...string) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	// Apart from the search, or xdotool would send to the window what it ignores.
	wait := []string{"search", "--sync", "--onlyvisible", "--name", title}
	for _, args := range [][]string{wait, append([]string{"mousemove", "512", "345", "sleep", "0.3"}, steps...)} {
		if out, err := exec.CommandContext(ctx, "xdotool", args...).CombinedOutput(); err != nil {
			t.Errorf("xdotool %v: %v: %s", args, err, out)
		}
	}
}

var question = platform.Question{
	Title: "Signed mail", Text: "Acme sets up <b>anna_b@acme.test</b> & co.\n贵公司将为您配置加密邮件。\\n",
	Yes: "Set _up 同意", Later: "Later & later", No: "No",
}

func askWhile(t *testing.T, q platform.Question, act func()) (platform.Answer, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); act() }()
	answer, err := platform.NewPrompter().Ask(ctx, q)
	<-done
	return answer, err
}

func keys(names ...string) []string {
	var steps []string
	for _, n := range names {
		steps = append(steps, "key", n, "sleep", "0.1")
	}
	return steps
}

func TestZenityAsk(t *testing.T) {
	only(t, "zenity")
	two := question
	two.Later = ""
	for name, c := range map[string]struct {
		q     platform.Question
		steps []string
		want  platform.Answer
	}{
		"a stray Enter does not consent": {question, keys("Return"), platform.AnswerLater},
		"no":                             {question, keys("Tab", "Return"), platform.AnswerNo},
		"yes":                            {question, keys("Tab", "Tab", "Return"), platform.AnswerYes},
		"closed":                         {question, keys("Escape"), platform.AnswerLater},
		"no without later":               {two, keys("Return"), platform.AnswerNo},
		"yes without later":              {two, keys("Tab", "Return"), platform.AnswerYes},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := askWhile(t, c.q, func() { person(t, c.q.Title, c.steps...) })
			if got != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestZenityDestroyed: zenity ends with 0 if its window is destroyed, which must
// not count as a yes.
func TestZenityDestroyed(t *testing.T) {
	only(t, "zenity")
	got, err := askWhile(t, question, func() { person(t, question.Title, "search", "--name", question.Title, "windowclose") })
	if got != platform.AnswerLater || err != nil {
		t.Errorf("got %q, %v, want later", got, err)
	}
}

func TestZenityOutsideUTF8(t *testing.T) {
	only(t, "zenity")
	t.Setenv("LC_ALL", "C")
	got, err := askWhile(t, question, func() { person(t, question.Title, keys("Tab", "Tab", "Return")...) })
	if got != platform.AnswerYes || err != nil {
		t.Errorf("got %q, %v, want yes", got, err)
	}
}

// TestZenityWithoutItsLocale: a locale that is named but not installed is what a
// small system, or a login over ssh, often has.
func TestZenityWithoutItsLocale(t *testing.T) {
	only(t, "zenity")
	t.Setenv("LC_ALL", "xx_XX.UTF-8")
	got, err := askWhile(t, question, func() { person(t, question.Title, keys("Tab", "Tab", "Return")...) })
	if got != platform.AnswerYes || err != nil {
		t.Errorf("got %q, %v, want yes", got, err)
	}
}

func TestDialogEnds(t *testing.T) {
	for _, program := range []string{"zenity", "kdialog"} {
		t.Run(program, func(t *testing.T) {
			only(t, program)
			q := question
			q.Timeout = 700 * time.Millisecond
			if got, err := platform.NewPrompter().Ask(t.Context(), q); got != platform.AnswerLater || err != nil {
				t.Errorf("after its time: %q, %v, want later", got, err)
			}
			ctx, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
			defer stop()
			if got, err := platform.NewPrompter().Ask(ctx, question); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after the caller's time: %q, %v", got, err)
			}
			if _, err := platform.NewPrompter().Enter(t.Context(), platform.Entry{Title: "PIN", Text: "x", Timeout: 500 * time.Millisecond}); !errors.Is(err, platform.ErrDenied) {
				t.Errorf("an entry after its time: %v, want ErrDenied", err)
			}
			out, err := exec.Command("xdotool", "search", "--onlyvisible", "--name", question.Title).Output()
			if err == nil || len(out) > 0 {
				t.Errorf("a dialog is left: %s", out)
			}
		})
	}
}

func TestDialogEnter(t *testing.T) {
	for _, program := range []string{"zenity", "kdialog"} {
		t.Run(program, func(t *testing.T) {
			only(t, program)
			for _, secret := range []bool{false, true} {
				e := platform.Entry{Title: "PIN wanted", Text: "PIN of <b>card_1</b>", OK: "OK_", Cancel: "Cancel", Secret: secret}
				for name, c := range map[string]struct {
					steps []string
					want  string
					err   error
				}{
					"typed":  {append([]string{"type", "--delay", "20", "--args", "1", "pi n_&1"}, keys("Return")...), "pi n_&1", nil},
					"empty":  {keys("Return"), "", nil},
					"closed": {keys("Escape"), "", platform.ErrDenied},
				} {
					t.Run(fmt.Sprintf("%s secret=%v", name, secret), func(t *testing.T) {
						ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
						defer stop()
						done := make(chan struct{})
						go func() { defer close(done); person(t, e.Title, c.steps...) }()
						got, err := platform.NewPrompter().Enter(ctx, e)
						<-done
						if got != c.want || !errors.Is(err, c.err) {
							t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
						}
					})
				}
			}
		})
	}
}

func TestKDialogAsk(t *testing.T) {
	only(t, "kdialog")
	two := question
	two.No = ""
	for name, c := range map[string]struct {
		q     platform.Question
		steps []string
		want  platform.Answer
	}{
		"yes":        {question, keys("Return"), platform.AnswerYes},
		"no":         {question, keys("Tab", "Return"), platform.AnswerNo},
		"later":      {question, keys("Tab", "Tab", "Return"), platform.AnswerLater},
		"closed":     {question, keys("Escape"), platform.AnswerLater},
		"no offered": {two, keys("Tab", "Return"), platform.AnswerLater},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := askWhile(t, c.q, func() { person(t, c.q.Title, c.steps...) })
			if got != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestDeadDisplay: a display that is named but not there is nobody to ask, not
// a person who says later.
func TestDeadDisplay(t *testing.T) {
	for _, program := range []string{"zenity", "kdialog"} {
		t.Run(program, func(t *testing.T) {
			only(t, program)
			t.Setenv("DISPLAY", ":9999")
			if got, err := askDetached(t); err != "not supported" {
				t.Errorf("got %q, %q, want not supported", got, err)
			}
		})
	}
}

func TestNobodyToAsk(t *testing.T) {
	noSession(t)
	if got, err := askDetached(t); err != "not supported" {
		t.Errorf("got %q, %q, want not supported", got, err)
	}
}

// TestDoubleLabels: two buttons that read the same could not be told apart.
func TestDoubleLabels(t *testing.T) {
	only(t, "zenity")
	q := question
	q.No = q.Yes
	if got, err := platform.NewPrompter().Ask(t.Context(), q); err == nil {
		t.Errorf("got %q", got)
	}
	q.Yes = ""
	if got, err := platform.NewPrompter().Ask(t.Context(), q); err == nil {
		t.Errorf("without a word for yes: got %q", got)
	}
}
