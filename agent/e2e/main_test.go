//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

// The tests run in two forms. The quick one needs nothing but Go, and is a part
// of `make test`. The full one, with SMIME_AGENT_REQUIRE=1, wants root and the
// packages of .ci/e2e-packages.txt, and takes a missing one for a failure.
func full() bool { return os.Getenv(platformtest.RequireAll) == "1" }

// onlyFull skips what the quick form leaves out.
func onlyFull(t *testing.T, why string) {
	t.Helper()
	if !full() {
		t.Skipf("SKIP: %s; set %s=1 to run it", why, platformtest.RequireAll)
	}
}

// needRoot skips what only root can do.
func needRoot(t *testing.T) {
	t.Helper()
	platformtest.Need(t, "being root", os.Getuid() == 0)
}

// patience bounds every wait: generous, for a machine with other work.
const patience = 90 * time.Second

var build = struct {
	sync.Once
	dir string
	err error
}{}

// parallel is how many tests run at a time, unless the command line says: they
// mostly wait for one another's processes.
const parallel = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(parallel)
	}
	code := m.Run()
	for _, dir := range []string{build.dir, timed.dir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// programs gives the folder of the built programs: $SMIME_AGENT_BIN, or one
// into which they are built once.
func programs(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("SMIME_AGENT_BIN"); dir != "" {
		return dir
	}
	build.Do(func() { build.dir, build.err = buildPrograms() })
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.dir
}

func buildPrograms() (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	// `go test` keeps results by the files that a test looked at; so it looks at
	// the sources of the programs, or it would call an old pass a new one.
	for _, dir := range []string{"agent", "platform", "proto", "server-stub", "go.mod"} {
		if err := filepath.WalkDir(filepath.Join(root, dir), look); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp("", "smime-bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // other users' helpers are started from it
		return dir, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w -X main.version=e2e", "-o", dir, "./agent/cmd/...", "./server-stub")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}

func look(path string, _ fs.DirEntry, err error) error {
	if err == nil && !strings.HasSuffix(path, "_test.go") {
		_, err = os.Stat(path)
	}
	return err
}

// world is a company on this machine that reports to a test.
type world struct {
	*e2e.World
	t       *testing.T
	account string
	helpers []*e2e.Process
}

const alice = "alice@example.com"

// company is what most tests start from; adjust may be nil.
func company(t *testing.T, adjust func(*e2e.World)) *world {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: its name is too long for a Unix socket (unix(7), sun_path).
	dir, err := os.MkdirTemp("", "smime-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // other users' helpers must reach the socket
		t.Fatal(err)
	}
	w := &world{t: t, account: me.Username, World: &e2e.World{
		Bin: programs(t), Dir: dir, Consent: "silent", Profile: "employee-sign", Keys: []string{"p-256"}, Stores: []string{"file"},
		Settings:  []string{"retry_cap: 1s"},
		Host:      loopback(),
		Employees: []e2e.Employee{{Account: me.Username, Mailbox: alice, Given: "Alice", Surname: "Example"}},
	}}
	if adjust != nil {
		adjust(w.World)
	}
	t.Cleanup(w.end)
	return w
}

// loopback draws an address that no other world has.
func loopback() string { return fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(256), 1+rand.N(250)) }

func (w *world) end() {
	for _, p := range w.helpers {
		p.Stop()
	}
	w.Close()
	if w.t.Failed() {
		w.t.Logf("the end of the service's log:\n%s", w.logTail("agent/log/agent.log", 40))
	}
	_ = os.RemoveAll(w.Dir)
}

// logTail is the end of a file in the world's folder.
func (w *world) logTail(name string, lines int) string {
	raw, err := os.ReadFile(filepath.Join(w.Dir, name))
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// within gives a context for one wait.
func (w *world) within() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// open founds the company and starts central management and the service.
func (w *world) open() {
	w.t.Helper()
	ctx := w.within()
	w.must(w.Founded(ctx))
	w.must(w.StartServer(ctx))
	w.must(w.WriteSettings(ctx))
	w.must(w.StartAgent(ctx))
}

// login starts a helper.
func (w *world) login(o e2e.HelperOptions) *e2e.Process {
	w.t.Helper()
	if o.Account == "" {
		o.Account = w.account
	}
	p, err := w.StartHelper(o)
	w.must(err)
	w.helpers = append(w.helpers, p)
	return p
}

// await waits for a status.
func (w *world) await(what string, want func(status.Report) bool) status.Report {
	w.t.Helper()
	r, err := w.Await(w.within(), what, want)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// agent runs a command of smime-agent that must succeed.
func (w *world) agent(args ...string) string {
	w.t.Helper()
	out, err := w.Agent(w.within(), args...)
	w.must(err)
	return out
}

// central runs a command of server-stub that must succeed.
func (w *world) central(args ...string) string {
	w.t.Helper()
	out, err := w.Central(w.within(), args...)
	w.must(err)
	return out
}

// credential finds the newest credential of a mailbox in one of the states.
func credential(r status.Report, mailbox string, states ...enroll.State) (status.Credential, bool) {
	for _, c := range slices.Backward(r.Credentials) {
		if c.Mailbox == mailbox && slices.Contains(states, c.State) {
			return c, true
		}
	}
	return status.Credential{}, false
}

// has says that a mailbox has a credential in one of the states.
func has(mailbox string, states ...enroll.State) func(status.Report) bool {
	return func(r status.Report) bool {
		_, ok := credential(r, mailbox, states...)
		return ok
	}
}

// condition finds a condition by its code.
func condition(r status.Report, code enroll.Code) (status.Condition, bool) {
	i := slices.IndexFunc(r.Conditions, func(c status.Condition) bool { return c.Code == code })
	if i < 0 {
		return status.Condition{}, false
	}
	return r.Conditions[i], true
}

// exitOf is the exit code in an error of a command, or -1.
func exitOf(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err == nil {
		return 0
	}
	return -1
}
