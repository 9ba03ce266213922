package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"smime-agent/platform"
)

// byKernel asks the kernel, as the platform does.
func byKernel(c net.Conn) (platform.Peer, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return platform.Peer{}, err
	}
	var cred *syscall.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		cred, asked = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || asked != nil {
		return platform.Peer{}, fmt.Errorf("SO_PEERCRED: %w, %w", err, asked)
	}
	return platform.Peer{User: "uid:" + strconv.Itoa(int(cred.Uid)), Admin: cred.Uid == 0}, nil
}

// The test's program is also the flood's and the idle helper's.
const (
	floodEnv = "SMIME_TEST_FLOOD_ADDRESS"
	lendEnv  = "SMIME_TEST_LEND_ADDRESS"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(lendEnv); address != "" {
		Dialer{Address: address, Dial: plainDial}.AttachForever(context.Background(), Lending{Session: newMemory()})
	}
	address := os.Getenv(floodEnv)
	if address == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	opened, kept := flood(ctx, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", address)
	}, 2400)
	cancel()
	fmt.Println(opened, kept)
}

// Another user, as the kernel knows him, floods the service from a process of
// his own.
func TestAFloodOfAnotherUID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	dir, err := os.MkdirTemp("", "flood")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "flood")
	copyFile(t, program)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(dir, "a.sock")
	serveKernel(t, address)

	child := exec.CommandContext(t.Context(), program)
	child.Env = []string{floodEnv + "=" + address}
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, err := child.Output()
		var opened, kept int
		if _, scanned := fmt.Sscan(string(out), &opened, &kept); err != nil || scanned != nil {
			t.Errorf("child: %v, %q", err, out)
		}
		t.Logf("uid 12345 opened %d, kept %d", opened, kept)
		if opened < 2000 || kept > 64 {
			t.Errorf("opened %d, kept %d", opened, kept)
		}
	}()
	if calls := serveOthers(t, Dialer{Address: address, Dial: plainDial}, done); calls == 0 {
		t.Error("nobody else was served")
	}
}

func plainDial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", address)
}

func serveKernel(t *testing.T, address string) *scripted {
	t.Helper()
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(address, 0o666); err != nil { // as everybody's socket is
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	agent := newScripted()
	s := &Server{Agent: agent, PeerOf: byKernel, Limits: Limits{Handshake: 30 * time.Second}}
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return agent
}

func copyFile(t *testing.T, to string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// An idle helper sleeps: the kernel counts how often its process gave the
// processor away of its own will, which it does once for each time it woke.
func TestAnIdleHelperSleeps(t *testing.T) {
	if testing.Short() {
		t.Skip("watches for half a minute")
	}
	address := filepath.Join(t.TempDir(), "a.sock")
	agent := serveKernel(t, address)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	helper := exec.CommandContext(t.Context(), self)
	helper.Env = []string{lendEnv + "=" + address}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = helper.Process.Kill()
		_ = helper.Wait()
	})
	<-agent.attached
	time.Sleep(3 * time.Second) // what is left of starting
	const watched = 30 * time.Second
	before := switches(t, helper.Process.Pid)
	if before == 0 {
		t.Skip("this kernel does not count voluntary switches")
	}
	time.Sleep(watched)
	perMinute := float64(switches(t, helper.Process.Pid)-before) * float64(time.Minute) / float64(watched)
	t.Logf("%.0f voluntary switches a minute", perMinute)
	if perMinute > 4 {
		t.Errorf("%.0f voluntary switches a minute", perMinute)
	}
}

// switches sums the voluntary switches of all threads of a process (proc(5)).
func switches(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatal("no such process: ", err)
	}
	sum := 0
	for _, task := range tasks {
		raw, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(raw)) {
			if n, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				v, err := strconv.Atoi(strings.TrimSpace(n))
				if err != nil {
					t.Fatal(err)
				}
				sum += v
			}
		}
	}
	return sum
}
