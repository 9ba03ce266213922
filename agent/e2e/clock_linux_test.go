package e2e_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/server-stub/stub"
)

// movable builds service and helper with a clock that the test can move while
// they run. The clock of Go programs cannot be moved from outside, since they do
// not ask the C library; so these are built with another time.Now, which adds
// what stands in a file that they share. It is made from the toolchain's own source by the
// compiler's -overlay: nothing of it is in the sources or in what ships. As on a
// real machine, the monotonic clock and the timers do not move with it.
func movable(t *testing.T) (bin string, move func(time.Duration)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "smime-clock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "offset")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	move = func(by time.Duration) {
		if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by/time.Second)), 0); err != nil {
			t.Fatal(err)
		}
	}
	move(0)
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	replaced := map[string]string{
		filepath.Join(source, "time.go"):  write(t, filepath.Join(dir, "time.go"), movedNow(t, filepath.Join(source, "time.go"))),
		filepath.Join(source, "moved.go"): write(t, filepath.Join(dir, "moved.go"), fmt.Sprintf(movedSource, file)),
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(dir, "bin")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w -X main.version=e2e",
		"-overlay", write(t, filepath.Join(dir, "overlay.json"), string(overlay)), "-o", bin+"/", "./agent/cmd/...")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with a movable clock: %v\n%s", err, out)
	}
	if err := os.Symlink(filepath.Join(programs(t), "server-stub"), filepath.Join(bin, "server-stub")); err != nil {
		t.Fatal(err)
	}
	return bin, move
}

// movedNow is the toolchain's time.go with one line more.
func movedNow(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const before, line = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {", "\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(raw), before) != 1 {
		t.Fatalf("%s of %s reads the clock otherwise; teach this test", path, runtime.Version())
	}
	return strings.Replace(string(raw), line+"\tif mono == 0 {", line+"\tsec += moved()\n\tif mono == 0 {", 1)
}

// movedSource is a file of package time. The clock is read on the runtime's own
// stacks too, where nothing may block, so the offset is in memory that the
// processes share.
const movedSource = `package time

import (
	"syscall"
	"unsafe"
)

var offset = shared(%q)

func shared(name string) *int64 {
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		panic("no clock: " + err.Error())
	}
	at, _, failed := syscall.Syscall6(syscall.SYS_MMAP, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED, uintptr(fd), 0)
	if failed != 0 {
		panic("no clock: " + failed.Error())
	}
	return *(**int64)(unsafe.Pointer(&at))
}

func moved() (seconds int64) {
	if offset == nil {
		return 0
	}
	return *offset
}
`

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestClock is case F5: the machine's clock jumps, while the service runs and
// over a restart, and comes back. No certificate that is still valid is given
// up, nobody asks for more than one new one, the person is not asked, and with
// the right time all is well again by itself.
func TestClock(t *testing.T) {
	onlyFull(t, "it builds the programs with another clock")
	t.Parallel()
	bin, move := movable(t)
	now := time.Now()
	jumps := []struct {
		name string
		by   time.Duration
	}{
		{"an hour ahead", time.Hour}, {"an hour behind", -time.Hour},
		{"a day ahead", 24 * time.Hour}, {"a day behind", -24 * time.Hour},
		{"asleep for 30 days", 30 * 24 * time.Hour},
		{"ten years ahead", 10 * 365 * 24 * time.Hour}, {"ten years behind", -10 * 365 * 24 * time.Hour},
		{"reset to 1970", time.Unix(0, 0).Sub(now)},
		{"reset to 2000", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Sub(now)},
	}
	w := company(t, func(x *e2e.World) { x.Bin = bin })
	_, n := w.openWith(stub.Options{})
	w.login(e2e.HelperOptions{})
	r := w.await("a proved certificate", has(alice, enroll.Active))
	first, _ := credential(r, alice, enroll.Active)
	for _, jump := range jumps {
		submitted, joined := n.of("Submit"), n.of("Join")
		move(jump.by)
		w.shownWhile(jump.name, first)
		w.Service().Stop()
		w.must(w.StartAgent(w.within()))
		w.shownWhile(jump.name+", restarted", first)
		move(0)
		_, _ = w.Agent(w.within(), "sync") // it may be refused while the service finds its way back
		r := w.await("health after "+jump.name, func(r status.Report) bool {
			c, ok := credential(r, alice, enroll.Active)
			return ok && c.Proof.OK() && r.Device.LastContact.After(now) && r.Device.LastContact.Before(time.Now().Add(time.Minute)) &&
				len(r.Conditions) == 0 && atRest(r)
		})
		if got := n.of("Submit") - submitted; got > 1 {
			t.Errorf("%s: %d certificates were asked for", jump.name, got)
		}
		if n.of("Join") != joined {
			t.Errorf("%s: the machine joined anew", jump.name)
		}
		if c := named(r, first.ID); c == nil || c.State != enroll.Active && c.State != enroll.Kept {
			t.Errorf("%s: the certificate is %+v", jump.name, c)
		}
	}
	if entries := w.ledger(); len(entries) > 1+len(jumps)/2 {
		t.Errorf("%d certificates after %d jumps", len(entries), len(jumps))
	}
	t.Logf("certificates: %d; calls: %v", len(w.ledger()), n.counts)
}

// shownWhile looks that the status tells of the credential, and does not give a
// valid one up, whatever the machine's clock says.
func (w *world) shownWhile(when string, first status.Credential) {
	w.t.Helper()
	_, _ = w.Agent(w.within(), "sync") // by a clock that is far off, TLS must refuse
	r, err := w.Report(w.within())
	w.must(err)
	if c := named(r, first.ID); c == nil || c.State != enroll.Active && c.State != enroll.Kept {
		w.t.Errorf("%s: the certificate is %+v", when, c)
	}
	for _, c := range r.Credentials {
		if c.State == enroll.Wanted && c.Problem != nil && c.Problem.Code == enroll.CodeConsentPending {
			w.t.Errorf("%s: the person is asked", when)
		}
	}
	w.t.Logf("%s: %d credentials, conditions %v", when, len(r.Credentials), codesOf(r))
}

// atRest says that nothing is under way.
func atRest(r status.Report) bool {
	for _, c := range r.Credentials {
		switch c.State {
		case enroll.Active, enroll.Kept, enroll.Over:
		default:
			return false
		}
	}
	return true
}

func named(r status.Report, id enroll.ID) *status.Credential {
	for i := range r.Credentials {
		if r.Credentials[i].ID == id {
			return &r.Credentials[i]
		}
	}
	return nil
}

func codesOf(r status.Report) []enroll.Code {
	var all []enroll.Code
	for _, c := range r.Conditions {
		all = append(all, c.Code)
	}
	return all
}
