package platform_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smime-agent/platform"
)

// TestPromptChild is not a test of its own: it is a process with a terminal, or
// without one, that asks.
func TestPromptChild(t *testing.T) {
	verb := os.Getenv("PLATFORM_TEST_PROMPT")
	p, ctx := platform.NewPrompter(), t.Context()
	var answer string
	var err error
	switch verb {
	case "":
		t.Skip("runs as a child of other tests")
	case "ask":
		var a platform.Answer
		a, err = p.Ask(ctx, question)
		answer = string(a)
	case "ask briefly":
		q := question
		q.Timeout = 200 * time.Millisecond
		var a platform.Answer
		a, err = p.Ask(ctx, q)
		answer = string(a)
	case "ask until canceled":
		ctx, stop := context.WithTimeout(ctx, 200*time.Millisecond)
		defer stop()
		_, err = p.Ask(ctx, question)
		answer = fmt.Sprint(errors.Is(err, context.DeadlineExceeded))
		err = nil
	case "ask in background":
		cmd := promptChild("ask")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		ctx, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		out, err := cmd.Output()
		fmt.Printf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	case "enter", "enter secret":
		answer, err = p.Enter(ctx, platform.Entry{Title: "PIN", Text: "Type it", Secret: verb == "enter secret"})
	case "notify":
		err = p.Notify(ctx, platform.Notice{Title: "News\x1b[31m", Text: "All is well"})
	}
	class := ""
	for _, e := range []error{platform.ErrUnsupported, platform.ErrDenied} {
		if errors.Is(err, e) {
			class = e.Error()
		}
	}
	if err != nil && class == "" {
		class = err.Error()
	}
	fmt.Printf("result %s %s\n", strconv.Quote(answer), strconv.Quote(class))
}

func promptChild(verb string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestPromptChild$", "-test.v")
	cmd.Env = append(os.Environ(), "PLATFORM_TEST_PROMPT="+verb)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func result(t *testing.T, out []byte) (answer, class string) {
	t.Helper()
	for line := range strings.Lines(string(out)) {
		if n, _ := fmt.Sscanf(line, "result %q %q", &answer, &class); n == 2 {
			return answer, class
		}
	}
	t.Fatalf("no result in %s", out)
	return "", ""
}

// askDetached asks in a process that has no terminal, whatever the test has.
func askDetached(t *testing.T) (answer, class string) {
	t.Helper()
	out, err := promptChild("ask").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return result(t, out)
}

// screen collects what a terminal shows.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// pty opens a pseudo terminal (pty(7)).
func pty(t *testing.T) (keyboard, line *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		missing(t, "a pseudo terminal: "+err.Error())
	}
	t.Cleanup(func() { keyboard.Close() })
	var number int
	raw, err := keyboard.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		err = errors.Join(err, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	return keyboard, line
}

// atTerminal runs a child at a terminal, types when it prompts, and gives its
// result and what the terminal showed.
func atTerminal(t *testing.T, verb, typed string) (answer, class, shown string) {
	t.Helper()
	keyboard, line := pty(t)
	cmd := promptChild(verb)
	cmd.Stdin = line
	cmd.SysProcAttr.Setctty = true // Ctty 0 is the child's stdin
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line.Close()
	var seen screen
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r := bufio.NewReader(io.TeeReader(keyboard, &seen))
		for {
			c, err := r.ReadByte()
			if err != nil {
				return // EIO: the child is gone
			}
			if c == '>' && strings.HasSuffix(seen.String(), "\n> ") {
				if _, err := io.WriteString(keyboard, typed); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	<-watched
	answer, class = result(t, out.Bytes())
	return answer, class, seen.String()
}

func TestTerminal(t *testing.T) {
	noSession(t)
	for name, c := range map[string]struct{ verb, typed, answer, class, shows, hides string }{
		"yes":        {"ask", "1\n", "yes", "", "  1) Set _up 同意", ""},
		"later":      {"ask", " 2 \n", "later", "", "  2) Later & later", ""},
		"no":         {"ask", "3\n", "no", "", "  3) No", ""},
		"other":      {"ask", "sure\n", "later", "", "", ""},
		"zero":       {"ask", "0\n", "later", "", "", ""},
		"empty":      {"ask", "\n", "later", "", "", ""},
		"end":        {"ask", "\x04", "later", "", "", ""},
		"timeout":    {"ask briefly", "", "later", "", "", ""},
		"cancel":     {"ask until canceled", "", "true", "", "", ""},
		"entry":      {"enter", "pi n\n", "pi n", "", "pi n", ""},
		"secret":     {"enter secret", "pi n\n", "pi n", "", "Type it", "pi n"},
		"secret end": {"enter secret", "\x04", "", "denied", "", ""},
		"notice":     {"notify", "", "", "", "News [31m\r\nAll is well", "\x1b"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, class, shown := atTerminal(t, c.verb, c.typed)
			if answer != c.answer || class != c.class {
				t.Errorf("got %q, %q, want %q, %q", answer, class, c.answer, c.class)
			}
			if !strings.Contains(shown, c.shows) || c.hides != "" && strings.Contains(shown, c.hides) {
				t.Errorf("the terminal shows %q", shown)
			}
		})
	}
}

// TestTerminalInBackground: a process that would be stopped for reading does
// not try.
func TestTerminalInBackground(t *testing.T) {
	noSession(t)
	if answer, class, shown := atTerminal(t, "ask in background", ""); class != "not supported" || shown != "" {
		t.Errorf("got %q, %q, want not supported; the terminal shows %q", answer, class, shown)
	}
}
