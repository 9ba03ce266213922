//go:build linux

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"smime-agent/platform/platformtest"
)

// prefix is a fresh Windows under Wine, with a screen that nobody sees.
type prefix struct {
	// t is the running step's, whole that of all of them.
	t, whole  *testing.T
	dir, wine string
	env       []string
	// artifacts is where the test leaves what a person may want to look at.
	artifacts string
}

// Where the agent lies, as Windows and as this side see it.
const (
	windowsPrograms = `C:\Program Files\smime-agent\`
	drivePrograms   = "drive_c/Program Files/smime-agent"
	windowsData     = `C:\ProgramData\smime-agent\`
	driveData       = "drive_c/ProgramData/smime-agent"
)

func newPrefix(t *testing.T) *prefix {
	t.Helper()
	p := bootPrefix(t)
	p.build()
	p.start("wineprobe.exe") // without a process Wine ends its services
	return p
}

// bootPrefix gives a Windows without any program of ours.
func bootPrefix(t *testing.T) *prefix {
	t.Helper()
	p := &prefix{t: t, whole: t, wine: platformtest.NeedFile(t, "Wine", "/usr/lib/wine/wine64"), artifacts: cmp.Or(os.Getenv("SMIME_AGENT_ARTIFACTS"), t.ArtifactDir())}
	p.must(os.MkdirAll(p.artifacts, 0o755))
	platformtest.NeedPrograms(t, "wineboot", "x86_64-w64-mingw32-gcc", "Xvfb", "xdotool", "import")
	// Not t.TempDir, whose cleaning fails while Wine's processes are on their way out.
	dir, err := os.MkdirTemp("", "smime-wine-")
	p.must(err)
	p.dir = dir
	t.Cleanup(p.end)
	// Before the first process of the prefix, or nothing is drawn.
	p.env = append(os.Environ(), "WINEPREFIX="+filepath.Join(dir, "prefix"), "WINEDEBUG=-all",
		"WINEDLLOVERRIDES=mscoree,mshtml=", "DISPLAY="+p.screen())
	p.watch()
	p.must(p.program(3*time.Minute, "boot", "wineboot", "-i"))
	// Until the first processes have ended, no service starts (start_rpcss).
	p.must(p.program(time.Minute, "boot", "/usr/lib/wine/wineserver64", "-w"))
	p.randomNumbers()
	return p
}

func (p *prefix) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *prefix) path(name string) string { return filepath.Join(p.dir, "prefix", name) }

// watch cleans up behind a test that was killed and could not: Wine's services
// would live on.
func (p *prefix) watch() {
	p.t.Helper()
	const script = `while kill -0 "$1" 2>/dev/null; do sleep 2; done; /usr/lib/wine/wineserver64 -k; sleep 2; rm -rf "$2"`
	cmd := exec.Command("sh", "-c", script, "sh", strconv.Itoa(os.Getpid()), p.dir)
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.must(cmd.Start())
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// end stops the processes of this prefix only.
func (p *prefix) end() {
	if p.env != nil {
		_ = p.program(time.Minute, "end", "/usr/lib/wine/wineserver64", "-k")
	}
	_ = os.RemoveAll(p.dir)
}

// screen starts an X server and gives its name. The number is drawn, not left to
// the server's -displayfd: with that it takes no lock, and may share a number with
// another.
func (p *prefix) screen() string {
	p.t.Helper()
	number := 1000 + rand.N(50000)
	name := fmt.Sprintf(":%d", number)
	cmd := exec.Command("Xvfb", name, "-screen", "0", "1024x768x24", "-nolisten", "tcp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.must(cmd.Start())
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	socket := fmt.Sprintf("/tmp/.X11-unix/X%d", number)
	for deadline := time.Now().Add(winePatience); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return name
		}
		if time.Now().After(deadline) {
			p.t.Fatal("no screen came up")
		}
	}
}

// randomNumbers gives Wine 8 the library that Go programs start with.
func (p *prefix) randomNumbers() {
	p.t.Helper()
	library := p.path("drive_c/windows/system32/bcryptprimitives.dll")
	if raw, err := os.ReadFile(library); err == nil && bytes.Contains(raw, []byte("ProcessPrng")) {
		return // Wine 10 has its own
	}
	p.must(p.program(time.Minute, "gcc", "x86_64-w64-mingw32-gcc", "-shared", "-Os", "-s", "-o", library,
		"../../.ci/wine/bcryptprimitives.c", "-ladvapi32"))
}

// largest is what one program may weigh, in bytes.
const largest = 20 << 20

// build puts the programs where an installer would.
func (p *prefix) build() {
	p.t.Helper()
	p.must(os.MkdirAll(p.path(drivePrograms), 0o755))
	for name, flags := range map[string]string{"cmd/smime-agent": "-s -w -X main.version=wine", "cmd/smime-helper": "-s -w -H=windowsgui -X main.version=wine", "e2e/wineprobe": "-s -w"} {
		exe := p.path(filepath.Join(drivePrograms, filepath.Base(name)+".exe"))
		cmd := exec.CommandContext(p.t.Context(), "go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", flags, "-o", exe, "./agent/"+name)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		info, err := os.Stat(exe)
		p.must(err)
		p.t.Logf("%s: %.1f MB", filepath.Base(exe), float64(info.Size())/(1<<20))
		if info.Size() > largest {
			p.t.Errorf("%s has %d bytes, at most %d", name, info.Size(), largest)
		}
	}
}

// program runs a program of this side in the prefix's environment.
func (p *prefix) program(limit time.Duration, log, name string, args ...string) error {
	_, err := p.output(limit, log, name, args...)
	return err
}

// output goes through a file: Wine's services inherit a pipe and hold it open
// for as long as they live.
func (p *prefix) output(limit time.Duration, log, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), limit)
	defer cancel()
	dir, err := os.MkdirTemp(p.dir, log+"-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = p.env
	said, complained := filepath.Join(dir, "out"), filepath.Join(dir, "err")
	for path, to := range map[string]*io.Writer{said: &cmd.Stdout, complained: &cmd.Stderr} {
		file, err := os.Create(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		*to = file
	}
	err = cmd.Run()
	out, reading := os.ReadFile(said)
	text := strings.ReplaceAll(string(out), "\r", "")
	if err != nil {
		why, _ := os.ReadFile(complained)
		err = fmt.Errorf("%s %q: %w\n%s%s", name, args, err, text, strings.ReplaceAll(string(why), "\r", ""))
	}
	return text, errors.Join(err, reading)
}

// try runs a program of Windows.
func (p *prefix) try(args ...string) (string, error) {
	args[0] = windowsPrograms + args[0]
	return p.output(2*time.Minute, "run", p.wine, args...)
}

// run runs a program of Windows that must succeed.
func (p *prefix) run(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	p.must(err)
	return out
}

// start starts a program of Windows and lets it run, longer than the step.
func (p *prefix) start(args ...string) *exec.Cmd {
	p.t.Helper()
	cmd := exec.Command(p.wine, append([]string{windowsPrograms + args[0]}, args[1:]...)...)
	cmd.Env = p.env
	p.must(cmd.Start())
	p.whole.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// processes are those of a program of Windows in this prefix.
func (p *prefix) processes(exe string) (pids []int) {
	p.t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	p.must(err)
	for _, file := range found {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.HasSuffix(bytes.SplitN(line, []byte{0}, 2)[0], []byte(exe)) {
			continue
		}
		dir := filepath.Dir(file)
		if env, err := os.ReadFile(filepath.Join(dir, "environ")); err != nil || !bytes.Contains(env, []byte(p.dir)) {
			continue // another test's
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// resident is what a process holds in memory, in bytes (VmRSS, proc(5)).
func (p *prefix) resident(pid int) int64 {
	p.t.Helper()
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	p.must(err)
	_, rest, _ := strings.Cut(string(state), "VmRSS:")
	var kilobytes int64
	_, err = fmt.Sscan(rest, &kilobytes)
	p.must(err)
	return kilobytes << 10
}
