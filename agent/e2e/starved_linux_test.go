package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// plight is something that a process cannot do for a while.
type plight struct {
	name string
	// whom it is about: "service" or "helper".
	whom        string
	begin, over func()
	// tells is the condition, or the problem of the enrollment, that says so; empty
	// where the process cannot be asked meanwhile.
	tells enroll.Code
	// quiet: nothing fails that an enrollment needs.
	quiet bool
}

// TestStarved is case F3 for service and helper as processes: no byte more may be
// written (RLIMIT_FSIZE), no file more opened (RLIMIT_NOFILE), a disk is full or
// read-only, each under a process that runs and has work. The certificate in use
// works on, something says what is wrong, no keys are made in a loop, the log does
// not fill; and when the plight is over all goes on, without anybody's help but
// that a person whose agreement could not be kept agrees again.
func TestStarved(t *testing.T) {
	t.Parallel()
	w := company(t, func(w *e2e.World) { w.Consent = "ask" })
	var disks map[string]disk
	if full() {
		needRoot(t)
		disks = w.disks("agent/state", "agent/log", "home/"+w.account+"/.local/share/smime-agent/keys")
	}
	account := w.Employees[0].Account
	boxes := 0
	box := func() string { boxes++; return fmt.Sprintf("box%02d@example.com", boxes) }
	for range 12 {
		w.Employees = append(w.Employees, e2e.Employee{Account: account, Mailbox: box(), Given: "Alice", Surname: "Example"})
	}
	boxes = 0
	w.open()
	helper := w.login(e2e.HelperOptions{})
	w.await("all questions", func(r status.Report) bool { return count(r, enroll.Wanted) == len(w.Employees) })
	w.agent("approve", alice)
	w.await("a proved certificate", has(alice, enroll.Active))
	for _, p := range w.plights(helper, disks) {
		if len(p.name) > 0 {
			w.suffer(p, box())
		}
	}
	r := w.await("rest", atRestOrAsked)
	served := count(r, enroll.Active)
	if v, err := w.oracle().judge(r); err != nil || v.keys != served || v.certificates != served || v.decrypted != served {
		t.Errorf("oracle: %+v of %d, %v", v, served, err)
	}
}

// suffer has an enrollment meet a plight.
func (w *world) suffer(p plight, mailbox string) {
	w.t.Helper()
	keys, lines := w.keys(), w.logLines()
	p.begin()
	_, refused := w.Agent(w.within(), "approve", mailbox)
	if refused != nil && !strings.Contains(refused.Error(), "\n  -> ") {
		w.t.Errorf("%s of the %s: a refusal without a cure: %v", p.name, p.whom, refused)
	}
	w.t.Logf("%s of the %s: approving: %v", p.name, p.whom, refused)
	if p.tells != "" && refused == nil && !p.quiet {
		w.await(p.name+" is told of", func(r status.Report) bool {
			c, _ := newest(r, mailbox)
			_, machine := condition(r, p.tells)
			return machine || c.Problem != nil && c.Problem.Code == p.tells
		})
	}
	if n := w.keys(); n > keys+1 {
		w.t.Errorf("%s of the %s: %d keys were made for one mailbox", p.name, p.whom, n-keys)
	}
	p.over()
	if refused != nil {
		if _, err := w.Agent(w.within(), "approve", mailbox); err != nil && !strings.Contains(err.Error(), "state") {
			w.t.Errorf("%s of the %s is over, and approving: %v", p.name, p.whom, err)
		}
	}
	r := w.await("health after "+p.name+" of the "+p.whom, func(r status.Report) bool {
		return has(mailbox, enroll.Active)(r) && has(alice, enroll.Active)(r) && len(r.Users) > 0
	})
	if c, _ := credential(r, alice, enroll.Active); !c.Proof.OK() {
		w.t.Errorf("%s of the %s: the certificate in use is %+v", p.name, p.whom, c)
	}
	if n := w.logLines() - lines; n > 100 {
		w.t.Errorf("%s of the %s: %d lines in the log", p.name, p.whom, n)
	}
}

func atRestOrAsked(r status.Report) bool {
	return count(r, enroll.Active)+count(r, enroll.Wanted)+count(r, enroll.Kept)+count(r, enroll.Over) == len(r.Credentials)
}

func (w *world) logLines() int {
	raw, err := os.ReadFile(filepath.Join(w.Dir, "agent", "log", "agent.log"))
	if err != nil {
		return 0
	}
	return strings.Count(string(raw), "\n")
}

// Limits as prlimit(1) has them: the soft one only.
const (
	noBytes   = "--fsize=0:"
	allBytes  = "--fsize=unlimited:"
	someFiles = "--nofile=1024:"
)

func (w *world) plights(helper *e2e.Process, disks map[string]disk) []plight {
	service := w.Service()
	all := []plight{
		{name: "no more bytes", whom: "service", begin: w.limit(service, noBytes), over: w.limit(service, allBytes), tells: enroll.CodeRecordFailed},
		{name: "no more bytes", whom: "helper", begin: w.limit(helper, noBytes), over: w.limit(helper, allBytes), tells: enroll.CodeStoreFailed},
		{name: "no more files", whom: "service", begin: w.noFiles(service), over: w.limit(service, someFiles)},
		{name: "no more files", whom: "helper", begin: w.noFiles(helper), over: w.limit(helper, someFiles), tells: enroll.CodeStoreFailed},
	}
	for place, d := range disks {
		whom, tells, quiet := "service", enroll.CodeRecordFailed, false
		switch {
		case strings.Contains(place, "keys"):
			whom, tells = "helper", enroll.CodeStoreFailed
		case strings.Contains(place, "log"):
			quiet = true // the record tells, and the lines follow
		default:
			quiet = true // the record may have room within itself; TestFullDisk wants more of it
		}
		mend := func() { d.mend(w) }
		all = append(all,
			plight{name: "a full disk under " + place, whom: whom, begin: func() { d.full(w) }, over: mend, tells: tells, quiet: quiet},
			// A file system with a file open for writing cannot be made read-only; it is under the helper's keys.
			plight{name: readOnly(whom, place), whom: whom, begin: func() { d.remount(w, syscall.MS_RDONLY) }, over: mend, tells: tells})
	}
	return all
}

// readOnly is empty, which leaves the plight out, where it cannot be.
func readOnly(whom, place string) string {
	if whom == "service" {
		return ""
	}
	return "a read-only disk under " + place
}

// limit sets a limit of a process that runs, with prlimit(1).
func (w *world) limit(p *e2e.Process, limit string) func() {
	return func() {
		w.t.Helper()
		if out, err := exec.Command("prlimit", fmt.Sprintf("--pid=%d", p.PID()), limit).CombinedOutput(); err != nil {
			w.t.Fatalf("prlimit %s: %v: %s", limit, err, out)
		}
	}
}

// noFiles lets a process keep what it has open, and open nothing more: no number
// below the lowest that is free.
func (w *world) noFiles(p *e2e.Process) func() {
	return func() {
		w.t.Helper()
		for range 5 { // what was open for a moment only leaves its number free
			free := 0
			for {
				if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", p.PID(), free)); err != nil {
					break
				}
				free++
			}
			w.limit(p, fmt.Sprintf("--nofile=%d:", free))()
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// disk is a small file system in the world.
type disk struct{ dir string }

const diskSize = "size=2m,mode=0700"

func (w *world) disks(places ...string) map[string]disk {
	w.t.Helper()
	all := map[string]disk{}
	for _, place := range places {
		dir := filepath.Join(w.Dir, place)
		w.must(os.MkdirAll(dir, 0o700))
		w.must(syscall.Mount("tmpfs", dir, "tmpfs", 0, diskSize))
		w.t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		all[place] = disk{dir}
	}
	w.t.Cleanup(w.Close)
	return all
}

func (d disk) full(w *world) {
	w.t.Helper()
	w.must(fill(filepath.Join(d.dir, "filler")))
}

func (d disk) remount(w *world, flags uintptr) {
	w.t.Helper()
	w.must(syscall.Mount("tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT|flags, diskSize))
}

func (d disk) mend(w *world) {
	w.t.Helper()
	d.remount(w, 0)
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
}
