//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBadInput runs the scripts of testdata/script with the built programs:
// whatever is wrong in a flag, a file or a token gets a clear sentence and a
// cure, an exit code other than 0, and nothing is lost.
func TestBadInput(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// Sockets want a short path; servers want ports that nobody else takes.
			dir, err := os.MkdirTemp("", "smime-e2e-")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(dir) })
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("HOST", loopback())
			e.Setenv("RUN", dir)
			e.Setenv("SOCKET", dir+"/agent.sock")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": scriptExit, "until": scriptUntil, "expand": scriptExpand, "save": scriptSave,
		},
	})
}

// scriptExit: exit CODE command… runs a command and compares its exit code.
func scriptExit(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	if code := fmt.Sprint(exitOf(err)); code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// scriptUntil: until REGEXP command… repeats a command until what it prints
// matches, whatever its exit code.
func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	var out []byte
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(lookIn(ts.Getenv("PATH"), args[1]), args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		out, _ = cmd.CombinedOutput()
		if want.Match(out) {
			ts.Logf("%s", out)
			return
		}
	}
	ts.Fatalf("it never said %q, but:\n%s", args[0], out)
}

// lookIn finds a program in a path other than this process's.
func lookIn(path, program string) string {
	for dir := range strings.SplitSeq(path, string(os.PathListSeparator)) {
		if info, err := os.Stat(dir + "/" + program); err == nil && !info.IsDir() {
			return dir + "/" + program
		}
	}
	return program
}

// scriptExpand: expand FILE… replaces $VARIABLES in files, and makes them private.
func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		ts.Check(os.WriteFile(path, []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
		ts.Check(os.Chmod(path, 0o600))
	}
}

// scriptSave: save VARIABLE command… keeps the one word that a command printed.
func scriptSave(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
