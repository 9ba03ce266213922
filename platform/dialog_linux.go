package platform

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// dialogEnd is how a dialog program ended.
type dialogEnd struct {
	code       int
	out, warns string
}

// runDialog shows a dialog until it is answered or ctx ends; then the program
// dies with whatever it started. Texts are arguments, never a shell's.
func runDialog(ctx context.Context, env []string, program string, args ...string) (dialogEnd, error) {
	if !graphical() {
		return dialogEnd{}, unsupported("this session has no display", nil)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return dialogEnd{}, unsupported(program+" is not installed", err)
	}
	var out, warns bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &warns
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return dialogEnd{}, context.Cause(ctx)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return dialogEnd{exit.ExitCode(), out.String(), warns.String()}, nil
	}
	if err != nil { // not started, or died of a signal as it does without a display
		return dialogEnd{}, unsupported(program, err)
	}
	return dialogEnd{0, out.String(), warns.String()}, nil
}

// dialogEnv keeps the program from choking on our texts: where the character
// set is not UTF-8, zenity 3.44 refuses any other letter as a wrong option.
// LANGUAGE keeps its warnings in English, where we look for one.
func dialogEnv(env []string) []string {
	charset := ""
	for _, name := range []string{"LANG", "LC_CTYPE", "LC_ALL"} { // the last that is set counts
		for _, pair := range env {
			if value, ok := strings.CutPrefix(pair, name+"="); ok && value != "" {
				charset = value
			}
		}
	}
	env = append(env, "LANGUAGE=en")
	upper := strings.ToUpper(charset)
	if strings.Contains(upper, "UTF-8") || strings.Contains(upper, "UTF8") {
		return env
	}
	return append(env, "LC_ALL=C.UTF-8")
}

// doubled keeps a toolkit from taking a letter of ours for the mark of a
// keyboard shortcut.
func doubled(s, mark string) string { return strings.ReplaceAll(s, mark, mark+mark) }
