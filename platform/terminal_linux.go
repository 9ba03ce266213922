package platform

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal asks at the terminal of this process, if it is in the foreground.
type terminal struct{}

func (terminal) Ask(ctx context.Context, q Question) (Answer, error) {
	var answer Answer
	err := atTerminal(ctx, func(t *os.File) error {
		choices := offered(q)
		var prompt strings.Builder
		prompt.WriteString(heading(q.Title, q.Text))
		for i, c := range choices {
			fmt.Fprintf(&prompt, "  %d) %s\n", i+1, plainLine(c.label))
		}
		line, err := dialogue(t, prompt.String()+"> ")
		if err != nil {
			return err
		}
		answer = AnswerLater // whatever is no clear choice
		if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && n >= 1 && n <= len(choices) {
			answer = choices[n-1].answer
		}
		return nil
	})
	if errors.Is(err, io.EOF) {
		return AnswerLater, nil
	}
	return answer, err
}

func (terminal) Enter(ctx context.Context, e Entry) (string, error) {
	var text string
	err := atTerminal(ctx, func(t *os.File) (err error) {
		prompt := heading(e.Title, e.Text) + "> "
		if !e.Secret {
			text, err = dialogue(t, prompt)
			return err
		}
		return withoutEcho(t, func() error {
			text, err = dialogue(t, prompt)
			_, newline := io.WriteString(t, "\n")
			return errors.Join(err, newline)
		})
	})
	if errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%w: the person gave no answer", ErrDenied)
	}
	return text, err
}

func (terminal) Notify(ctx context.Context, n Notice) error {
	return atTerminal(ctx, func(t *os.File) error {
		_, err := io.WriteString(t, heading(n.Title, n.Text))
		return err
	})
}

func heading(title, text string) string {
	return fmt.Sprintf("\n%s\n%s\n", plainLine(title), plain(text))
}

type choice struct {
	label  string
	answer Answer
}

// offered are the answers that a question has a word for.
func offered(q Question) []choice {
	var list []choice
	for _, c := range []choice{{q.Yes, AnswerYes}, {q.Later, AnswerLater}, {q.No, AnswerNo}} {
		if c.label != "" {
			list = append(list, c)
		}
	}
	return list
}

// atTerminal opens the terminal anew, so that its deadlines and its
// non-blocking mode are nobody else's, and interrupts do when ctx ends.
func atTerminal(ctx context.Context, do func(*os.File) error) error {
	t, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return unsupported("this process has no terminal", err)
	}
	err = foreground(t)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { interrupt(t) })
		err = do(t)
		stop()
		if ctx.Err() != nil && err != nil {
			err = context.Cause(ctx)
		}
	}
	return errors.Join(err, t.Close())
}

// interrupt ends a read under way. If the terminal takes no deadline the read
// goes on, which foreground has ruled out.
func interrupt(t *os.File) { _ = t.SetReadDeadline(time.Unix(1, 0)) }

// foreground refuses a terminal that a question would only stop us at: the
// kernel stops a background process that reads (SIGTTIN, termios(3)).
func foreground(t *os.File) error {
	if err := t.SetReadDeadline(time.Time{}); err != nil {
		return unsupported("the terminal takes no deadline", err)
	}
	return onDescriptor(t, func(fd int) error {
		if !term.IsTerminal(fd) {
			return unsupported("/dev/tty is no terminal", nil)
		}
		group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		if err != nil {
			return unsupported("ask for the terminal's foreground", err)
		}
		if group != unix.Getpgrp() {
			return unsupported("this process is in the background of its terminal", nil)
		}
		return nil
	})
}

func dialogue(t *os.File, prompt string) (string, error) {
	if _, err := io.WriteString(t, prompt); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(t).ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func withoutEcho(t *os.File, do func() error) error {
	var before *unix.Termios
	err := onDescriptor(t, func(fd int) (err error) {
		if before, err = unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return err
		}
		quiet := *before
		quiet.Lflag &^= unix.ECHO
		return unix.IoctlSetTermios(fd, unix.TCSETSF, &quiet)
	})
	if err != nil {
		return unsupported("turn off the terminal's echo", err)
	}
	err = do()
	restored := onDescriptor(t, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETSF, before) })
	return errors.Join(err, restored)
}

// onDescriptor borrows the descriptor; [os.File.Fd] would end its deadlines.
func onDescriptor(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = raw.Control(func(fd uintptr) { done = do(int(fd)) })
	return errors.Join(err, done)
}
