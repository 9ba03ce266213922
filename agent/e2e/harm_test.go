//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

// TestForeignAuthority is case F12 in the whole product (agent/enroll has the
// table of all wrong certificates): the issuing CA was exchanged for one that
// the anchors know nothing of. What it issues is refused before it is installed,
// and the old credential stays in use.
func TestForeignAuthority(t *testing.T) {
	t.Parallel()
	w := company(t, nil)
	w.open()
	w.login(e2e.HelperOptions{})
	old, _ := credential(w.await("a proved certificate", has(alice, enroll.Active)), alice, enroll.Active)
	other := company(t, nil)
	other.must(other.Founded(other.within()))
	w.Server().Stop()
	for _, name := range []string{"issuing.crt", "issuing.key"} {
		raw, err := os.ReadFile(filepath.Join(other.Dir, "central", "ca", name))
		w.must(err)
		w.must(os.WriteFile(filepath.Join(w.Dir, "central", "ca", name), raw, 0o600))
	}
	w.must(w.StartServer(w.within()))
	w.agent("sync")
	w.agent("renew", alice)
	r := w.await("the refusal", func(r status.Report) bool {
		c, ok := newest(r, alice)
		return ok && c.ID != old.ID && c.Problem != nil && c.Problem.Code == enroll.CodeCertificateRejected
	})
	if c, ok := credential(r, alice, enroll.Active); !ok || c.ID != old.ID {
		t.Errorf("in use: %+v", c)
	}
	bad, _ := newest(r, alice)
	if w.events()["certificate-rejected"] == 0 || w.events()["certificate-installed"] != 1 {
		t.Errorf("events: %v", w.events())
	}
	stores, err := platform.Stores(t.Context(), platform.StoreOptions{Home: w.Home(w.account)})
	w.must(err)
	for _, s := range stores {
		if chain, err := s.Find(t.Context(), platform.KeyID(bad.ID)); err == nil {
			t.Errorf("%s has a certificate of %s", s.Info().Name, chain[0].Issuer)
		}
	}
	w.agent("prove", alice)
}

// TestFullDisk is case F3: the folder of the record is full. What is there keeps
// working, the status says why nothing goes on, no keys are made in a loop; and
// it goes on by itself when there is room.
func TestFullDisk(t *testing.T) {
	onlyFull(t, "it mounts a small disk")
	needRoot(t)
	t.Parallel()
	const others = 30
	w := company(t, func(w *e2e.World) {
		w.Consent = "ask"
		for i := range others {
			w.Employees = append(w.Employees, e2e.Employee{Account: w.Employees[0].Account, Mailbox: fmt.Sprintf("box%02d@example.com", i), Given: "Alice", Surname: "Example"})
		}
	})
	disk := filepath.Join(w.Dir, "agent", "state")
	w.must(os.MkdirAll(disk, 0o700))
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		w.Close()
		_ = syscall.Unmount(disk, syscall.MNT_DETACH)
	})
	w.open()
	w.login(e2e.HelperOptions{})
	w.await("all questions", func(r status.Report) bool { return count(r, enroll.Wanted) == others+1 })
	w.agent("approve", alice)
	old, _ := credential(w.await("a proved certificate", has(alice, enroll.Active)), alice, enroll.Active)
	w.ledgerOf(old)

	w.must(fill(filepath.Join(disk, "filler")))
	_, err := w.Agent(w.within(), "approve")
	t.Logf("approving all on a full disk: %v", err)
	r := w.await("the condition", func(r status.Report) bool {
		_, ok := condition(r, enroll.CodeRecordFailed)
		return ok || err != nil
	})
	if c, ok := credential(r, alice, enroll.Active); !ok || c.ID != old.ID || !c.Proof.OK() {
		t.Errorf("in use: %+v", c)
	}
	time.Sleep(3 * time.Second)
	if n := w.keys(); n > others+1 {
		t.Errorf("%d keys were made for %d mailboxes", n, others+1)
	}
	w.must(os.Remove(filepath.Join(disk, "filler")))
	if err != nil {
		w.agent("approve") // whoever was refused asks again
	}
	r = w.await("all certificates", func(r status.Report) bool { return count(r, enroll.Active) == others+1 && r.Severity == status.OK })
	if v, err := w.oracle().judge(r); err != nil || v.keys != others+1 || v.certificates != others+1 {
		t.Errorf("oracle: %+v, %v", v, err)
	}
}

// count counts credentials in a state.
func count(r status.Report, s enroll.State) int {
	n := 0
	for _, c := range r.Credentials {
		if c.State == s {
			n++
		}
	}
	return n
}

// fill writes until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for size := 64 << 10; size > 0; { // ever smaller, to the last byte
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				return errors.Join(err, f.Close())
			}
			size /= 2
		}
	}
	return f.Close()
}

// keys counts the keys in the employee's stores.
func (w *world) keys() int {
	w.t.Helper()
	stores, err := platform.Stores(w.t.Context(), platform.StoreOptions{Home: w.Home(w.account)})
	w.must(err)
	n := 0
	for _, s := range stores {
		found, err := s.Keys(w.t.Context())
		if err != nil && !errors.Is(err, platform.ErrNotFound) {
			w.t.Fatal(err)
		}
		n += len(found)
	}
	return n
}

// floodAddress tells a child of the tests which socket to flood.
const floodAddress = "SMIME_TEST_FLOOD"

// TestFloodChild is the hostile user's part of TestFlood. As a test of its own
// it has nothing to do.
func TestFloodChild(t *testing.T) {
	address := os.Getenv(floodAddress)
	if address == "" {
		return
	}
	var open []net.Conn
	fmt.Println("flooding")
	for n := 0; ; n++ {
		c, err := net.Dial("unix", address)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		switch n % 3 {
		case 0: // half open
		case 1:
			_, _ = io.WriteString(c, strings.Repeat("\x00\xff garbage", 1000))
		case 2: // the preface of HTTP/2, then a frame of 16 MB that never comes
			_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01")
		}
		if open = append(open, c); len(open) > 500 {
			_ = open[0].Close()
			open = open[1:]
		}
	}
}

// TestFlood is case F10: one user opens connections as fast as he can, half
// open, with garbage, with frames that never end. Others are served as if he
// were not there, and he gets nothing. How long they wait is for a benchmark to
// say (BenchmarkStatusInAFlood of agent/local); the command line gives up
// by itself, so one that waits too long is a failure here too.
func TestFlood(t *testing.T) {
	onlyFull(t, "it acts as other users")
	t.Parallel()
	two := people(t)
	w := company(t, nil)
	w.open()
	w.login(e2e.HelperOptions{})
	w.await("a proved certificate", has(alice, enroll.Active))
	raw, err := os.ReadFile(os.Args[0]) // where it lies, others may not go
	w.must(err)
	child := filepath.Join(w.Dir, "flood")
	w.must(os.WriteFile(child, raw, 0o755))

	quiet := w.waits(two[1])
	cmd := exec.Command(child, "-test.run=^TestFloodChild$")
	cmd.Env, cmd.Dir = append(os.Environ(), floodAddress+"="+w.Address()), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: two[0].uid, Gid: two[0].gid}, Pdeathsig: syscall.SIGKILL}
	w.must(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	time.Sleep(2 * time.Second)
	flooded := w.waits(two[1])
	t.Logf("status of another user: median %v, in the flood %v", quiet, flooded)
	// One line a minute and user, whatever he does (I6).
	if n := strings.Count(w.logTail("agent/log/agent.log", 1<<20), `"too many connections"`); n == 0 || n > 5 {
		t.Errorf("the flood left %d lines in the log", n)
	}
	w.agent("prove", alice)
	c, _ := credential(w.await("a credential in use", has(alice, enroll.Active)), alice, enroll.Active)
	w.ledgerOf(c)
}

// waits is the median of what a person waits for his status.
func (w *world) waits(p person) time.Duration {
	w.t.Helper()
	var took []time.Duration
	for range 11 {
		start := time.Now()
		if out, code := w.says(p, "status"); code != 0 {
			w.t.Fatalf("status of %s: exit code %d, %s", p.account, code, out)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}
