//go:build linux

// Command pictures takes the pictures of docs/user-guide.md: the built programs
// ask and tell on a desktop that nobody sees, and what they show is saved. It runs
// under an X server and a session bus of its own; `make pictures` gives it both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"smime-agent/agent/e2e"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the built programs")
	out := flag.String("out", "docs/img", "folder of the pictures")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	err := run(ctx, *bin, *out)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

// scene is one picture.
type scene struct {
	name, locale, consent string
	// password protects the person's store beforehand.
	password string
	// window is what its title begins with; empty for the whole screen.
	window string
}

var scenes = []scene{
	{name: "question-en", locale: "en_US.UTF-8", consent: "ask", window: "Example GmbH"},
	{name: "question-zh-CN", locale: "zh_CN.UTF-8", consent: "ask", window: "Example GmbH"},
	{name: "password-en", locale: "en_US.UTF-8", consent: "silent", password: "correct horse", window: "Password"},
	{name: "password-zh-CN", locale: "zh_CN.UTF-8", consent: "silent", password: "correct horse", window: "证书存储的密码"},
	{name: "notice-en", locale: "en_US.UTF-8", consent: "notify"},
	{name: "notice-zh-CN", locale: "zh_CN.UTF-8", consent: "notify"},
}

func run(ctx context.Context, bin, out string) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	desktop, err := startDesktop(ctx)
	if err != nil {
		return err
	}
	defer desktop()
	for _, s := range scenes {
		if err := s.take(ctx, bin, filepath.Join(out, s.name+".png")); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println(s.name)
	}
	return nil
}

// startDesktop gives windows a frame, and notices a place.
func startDesktop(ctx context.Context) (stop func(), err error) {
	var started []*exec.Cmd
	stop = func() {
		for _, c := range started {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	for _, program := range []string{"openbox", "dunst"} {
		c := exec.CommandContext(ctx, program)
		if err := c.Start(); err != nil {
			stop()
			return nil, err
		}
		started = append(started, c)
	}
	return stop, exec.CommandContext(ctx, "xsetroot", "-solid", "#d8dee4").Run()
}

func (s scene) take(ctx context.Context, bin, path string) (err error) {
	// The last scene's notices are still there. Before the first, the program that
	// shows them may not be up yet; then there is nothing to close.
	_ = exec.CommandContext(ctx, "dunstctl", "close-all").Run()
	dir, err := os.MkdirTemp("", "smime-pictures-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	me, err := user.Current()
	if err != nil {
		return err
	}
	w := &e2e.World{
		Bin: bin, Dir: dir, Consent: s.consent, Profile: "employee-dual", Output: io.Discard,
		Employees: []e2e.Employee{{Account: me.Username, Mailbox: "alice@example.com", Given: "Alice", Surname: "Example"}},
	}
	defer w.Close()
	if err := errors.Join(w.Founded(ctx), s.protect(ctx, w.Home(me.Username))); err != nil {
		return err
	}
	for _, do := range []func(context.Context) error{w.StartServer, w.WriteSettings, w.StartAgent} {
		if err := do(ctx); err != nil {
			return err
		}
	}
	env := []string{"LANG=" + s.locale, "LC_ALL=" + s.locale}
	for _, name := range []string{"DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS"} {
		env = append(env, name+"="+os.Getenv(name))
	}
	helper, err := w.StartHelper(e2e.HelperOptions{Account: me.Username, Env: env})
	if err != nil {
		return err
	}
	defer helper.Stop()
	return s.shoot(ctx, path)
}

// protect gives the person's NSS database a password.
func (s scene) protect(ctx context.Context, home string) error {
	if s.password == "" {
		return nil
	}
	db := filepath.Join(home, ".pki", "nssdb")
	file := filepath.Join(home, "password")
	if err := errors.Join(os.MkdirAll(db, 0o700), os.WriteFile(file, []byte(s.password+"\n"), 0o600)); err != nil {
		return err
	}
	return errors.Join(exec.CommandContext(ctx, "certutil", "-N", "-d", "sql:"+db, "-f", file).Run(), os.Remove(file))
}

// shoot waits for the window and saves what it looks like, in few colors.
func (s scene) shoot(ctx context.Context, path string) error {
	id, err := await(ctx, s.window)
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // it is there before it is drawn; and the second notice follows the first
	args, after := []string{"-window", "root"}, []string{"-format", "png"}
	if s.window != "" {
		// The frame belongs to the window's parent.
		args = []string{"-frame", "-window", id}
	} else {
		after = append(after, "-trim", "+repage", "-bordercolor", "#d8dee4", "-border", "12")
	}
	if out, err := exec.CommandContext(ctx, "import", append(args, path)...).CombinedOutput(); err != nil {
		return fmt.Errorf("import: %w: %s", err, out)
	}
	after = append(after, "-strip", "-colors", "128", path)
	if out, err := exec.CommandContext(ctx, "mogrify", after...).CombinedOutput(); err != nil {
		return fmt.Errorf("mogrify: %w: %s", err, out)
	}
	return nil
}

func await(ctx context.Context, title string) (string, error) {
	query := []string{"search", "--onlyvisible", "--name", "^" + title}
	if title == "" {
		query = []string{"search", "--onlyvisible", "--class", "[Dd]unst"}
	}
	for {
		out, err := exec.CommandContext(ctx, "xdotool", query...).Output()
		if ids := strings.Fields(string(out)); err == nil && len(ids) > 0 {
			return ids[len(ids)-1], nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no window %q: %w", title, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
