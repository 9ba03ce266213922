package platform_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// folder is one that other users can enter, as a service's is.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipc") // t.TempDir's name would be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func socket(t *testing.T) string { return filepath.Join(folder(t), "agent.sock") }

func TestIPC(t *testing.T) { platformtest.TestIPC(t, socket) }

func TestSocketMode(t *testing.T) {
	path := socket(t)
	platformtest.Listen(t, path)
	want := fs.ModeSocket | 0o600
	if os.Geteuid() == 0 {
		want = fs.ModeSocket | 0o666
	}
	wantMode(t, path, want)
}

// stale leaves a socket at path as a service does that was killed.
func stale(t *testing.T, path string) {
	t.Helper()
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListenTakesStaleSocket(t *testing.T) {
	path := socket(t)
	stale(t, path)
	if _, err := platform.Dial(t.Context(), path); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Dial of a stale socket: %v, want ErrNotFound", err)
	}
	platformtest.Listen(t, path)
}

func TestListenRefuses(t *testing.T) {
	cases := map[string]struct {
		prepare func(path string) error
		want    error
	}{
		"file":         {func(p string) error { return os.WriteFile(p, nil, 0o600) }, platform.ErrExists},
		"folder":       {func(p string) error { return os.Mkdir(p, 0o700) }, platform.ErrExists},
		"link":         {func(p string) error { return os.Symlink("elsewhere", p) }, platform.ErrExists},
		"open folder":  {func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) }, platform.ErrDenied},
		"sticky":       {func(p string) error { return os.Chmod(filepath.Dir(p), 0o777|fs.ModeSticky) }, platform.ErrDenied},
		"group writes": {func(p string) error { return os.Chmod(filepath.Dir(p), 0o775) }, platform.ErrDenied},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			if err := c.prepare(path); err != nil {
				t.Fatal(err)
			}
			if l, err := platform.Listen(path); !errors.Is(err, c.want) {
				t.Errorf("got %v, %v, want %v", l, err, c.want)
			}
		})
	}
	for name, address := range map[string]string{"abstract": "@smime-agent", "relative": "agent.sock", "long": "/run/" + strings.Repeat("x", 108)} {
		if l, err := platform.Listen(address); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("%s: got %v, %v, want ErrUnsupported", name, l, err)
		}
		if c, err := platform.Dial(t.Context(), address); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("%s: dialed %v, %v, want ErrUnsupported", name, c, err)
		}
	}
}

// TestListenRace: of many services that start over a stale socket, one gets it.
func TestListenRace(t *testing.T) {
	for range 10 {
		listenRace(t)
	}
}

func listenRace(t *testing.T) {
	t.Helper()
	path := socket(t)
	stale(t, path)
	var group sync.WaitGroup
	won := make(chan net.Listener, 20)
	for range 20 {
		group.Go(func() {
			if l, err := platform.Listen(path); err == nil {
				won <- l
			} else if !errors.Is(err, platform.ErrExists) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(won)
	if len(won) != 1 {
		t.Errorf("%d services listen", len(won))
	}
	for l := range won {
		l.Close()
	}
}

// TestListenLeavesAnothersSocket: root could remove it, but it is not ours.
func TestListenLeavesAnothersSocket(t *testing.T) {
	needRoot(t)
	path := socket(t)
	stale(t, path)
	if err := os.Chown(path, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if l, err := platform.Listen(path); !errors.Is(err, platform.ErrExists) {
		t.Errorf("got %v, %v, want ErrExists", l, err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestDialRefuses(t *testing.T) {
	needRoot(t)
	cases := map[string]func(path string) error{
		"another's socket": func(p string) error { return os.Chown(p, 1000, 1000) },
		"another's folder": func(p string) error { return os.Chown(filepath.Dir(p), 1000, 1000) },
		"open folder":      func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) },
		"link": func(p string) error {
			return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p))
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			platformtest.Listen(t, path)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if c, err := platform.Dial(t.Context(), path); !errors.Is(err, platform.ErrDenied) {
				t.Errorf("got %v, %v, want ErrDenied", c, err)
			}
		})
	}
}

// asUser runs one line of TestChild as another user, in this test's program.
func asUser(t *testing.T, uid uint32, verb, path string) *exec.Cmd {
	t.Helper()
	// By this link, because the program's own folder may be closed to others.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChild$", "-test.v")
	cmd.Env = []string{"PLATFORM_TEST_CHILD=" + verb, "PLATFORM_TEST_PATH=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// TestChild is not a test of its own: it is what other users do in the tests.
func TestChild(t *testing.T) {
	path := os.Getenv("PLATFORM_TEST_PATH")
	switch os.Getenv("PLATFORM_TEST_CHILD") {
	case "":
		t.Skip("runs as a child of other tests")
	case "dial":
		c, err := platform.Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := platform.PeerOf(c)
		fmt.Printf("the service is %s admin=%v %v\n", peer.User, peer.Admin, err)
		_, _ = c.Read(make([]byte, 1)) // until the other end has looked
	case "listen":
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		fmt.Println("listening")
		for {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
	case "take":
		if _, err := platform.Listen(path); err != nil {
			fmt.Println("refused:", err)
		}
	}
}

func TestPeerIsAnotherUser(t *testing.T) {
	needRoot(t)
	path := socket(t)
	l := platformtest.Listen(t, path)
	for _, uid := range []uint32{12345, 1000, overflow} {
		cmd := asUser(t, uid, "dial", path)
		out := lines(t, cmd)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		peer, err := platform.PeerOf(c)
		switch {
		case uid == overflow && !errors.Is(err, platform.ErrDenied):
			t.Errorf("uid %d: %+v, %v, want ErrDenied", uid, peer, err)
		case uid != overflow && (err != nil || peer.User != fmt.Sprintf("uid:%d", uid) || peer.Admin || peer.PID != cmd.Process.Pid):
			t.Errorf("uid %d: %+v, %v", uid, peer, err)
		}
		c.Close()
		expect(t, out, "the service is uid:0 admin=true <nil>")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// overflow is the uid that other namespaces' users show up as.
const overflow = 65534

func TestDialRefusesAnothersService(t *testing.T) {
	needRoot(t)
	path := socket(t)
	if err := os.Chown(filepath.Dir(path), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	cmd := asUser(t, 12345, "listen", path)
	out := lines(t, cmd)
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	expect(t, out, "listening")
	if c, err := platform.Dial(t.Context(), path); !errors.Is(err, platform.ErrDenied) {
		t.Fatalf("root dialed a user's service: %v, %v", c, err)
	}
	// Folder and file made to look right: the kernel still knows who listens.
	if err := errors.Join(os.Chown(filepath.Dir(path), 0, 0), os.Chown(path, 0, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := platform.Dial(t.Context(), path)
	if !errors.Is(err, platform.ErrDenied) || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("dialed %v, %v, want ErrDenied", c, err)
	}
}

func TestUserCannotTakeTheAddress(t *testing.T) {
	needRoot(t)
	path := socket(t)
	l := platformtest.Listen(t, path)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // the service died and left its socket
	out, err := asUser(t, 12345, "take", path).Output()
	if err != nil || !strings.Contains(string(out), "refused: listen at") {
		t.Fatalf("%s, %v", out, err)
	}
	wantMode(t, path, fs.ModeSocket|0o666)
}

func lines(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(out)
}

func expect(t *testing.T, out *bufio.Scanner, want string) {
	t.Helper()
	for out.Scan() {
		if out.Text() == want {
			return
		}
	}
	t.Errorf("the child never said %q", want)
}

func TestPeerOfRefusesOtherConnections(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if p, err := platform.PeerOf(a); !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("a pipe in memory: %+v, %v", p, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// TCP answers SO_PEERCRED too, with uid -1, which must not pass for a user.
	if p, err := platform.PeerOf(c); err == nil {
		t.Errorf("a TCP connection has the peer %+v", p)
	}
}

func TestPeerOfAfterClose(t *testing.T) {
	path := socket(t)
	l := platformtest.Listen(t, path)
	c, err := platform.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := server.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	// Who has gone is still who he was.
	if p, err := platform.PeerOf(server); err != nil || p.User == "" {
		t.Errorf("%+v, %v", p, err)
	}
	server.Close()
	if p, err := platform.PeerOf(server); err == nil {
		t.Errorf("a closed connection has the peer %+v", p)
	}
}

// Where no service manager made the folder, Listen does, for all to enter.
func TestListenMakesItsFolder(t *testing.T) {
	path := socket(t)
	if err := os.Remove(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	l, err := platform.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(filepath.Dir(path))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("folder is %v, %v", info.Mode(), err)
	}
}
