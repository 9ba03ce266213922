package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"smime-agent/agent/status"
)

// machine is a Debian of its own under a systemd of its own. It shares the
// network of this one, so that a server on the loopback serves it.
type machine struct {
	root string
	init int // the process that is its first
	// off is closed when it has been switched off, or wants to begin again.
	off chan struct{}
	// binds is what [machine.boot] was given.
	binds map[string]string
}

// packagesOfMachine are what an employee's machine has: a login that starts the
// user's service manager (libpam-systemd, dbus-user-session) and NSS; rpm; and what central
// management recommends.
const packagesOfMachine = "systemd,systemd-sysv,dbus,libpam-systemd,dbus-user-session,procps,libnss3,rpm,logrotate"

// newMachine makes a root folder of the same Debian as here, from where apt has
// its packages here, with more packages where they are named.
func newMachine(t *testing.T, more ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{root: filepath.Join(dir, "root")}
	sources := output(t, "apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
	var ofDebian []string
	for line := range strings.Lines(sources) {
		if strings.Contains(line, "/debian") {
			ofDebian = append(ofDebian, line)
		}
	}
	suite := strings.TrimSpace(output(t, "sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"))
	list, conf := filepath.Join(dir, "sources.list"), filepath.Join(dir, "apt.conf")
	must(t, os.WriteFile(list, []byte(strings.Join(ofDebian, "")), 0o600))
	must(t, os.WriteFile(conf, []byte(output(t, "apt-config", "dump", "Acquire")), 0o600))
	begin := time.Now()
	output(t, "mmdebstrap", "--quiet", "--variant=minbase", "--aptopt="+conf, "--include="+strings.Join(append([]string{packagesOfMachine}, more...), ","), suite, m.root, list)
	t.Logf("Debian laid out in %s", time.Since(begin).Round(time.Second))
	return m
}

// boot starts it, and stops it when the test ends. What else is bound into it is
// read-only.
func (m *machine) boot(t *testing.T, binds map[string]string) {
	t.Helper()
	roomForInotify(t)
	m.binds = binds
	// Pid 1 here need not be systemd: hence no registration and no unit.
	args := []string{"--quiet", "--register=no", "--keep-unit", "--directory=" + m.root, "--boot"}
	for from, to := range binds {
		args = append(args, "--bind-ro="+from+":"+to)
	}
	cmd := exec.Command("systemd-nspawn", args...)
	console := filepath.Join(t.TempDir(), "console")
	said, err := os.Create(console)
	must(t, err)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	off := make(chan struct{})
	m.off = off
	go func() { _ = cmd.Wait(); close(off) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // nspawn powers the machine off
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		<-off
		_ = said.Close()
	})
	m.eventually(t, 60*time.Second, "the machine's systemd", func() error {
		m.init = 0
		for child := range strings.FieldsSeq(read(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))) {
			if strings.TrimSpace(read("/proc/"+child+"/comm")) == "systemd" {
				m.init, _ = strconv.Atoi(child)
			}
		}
		if m.init == 0 {
			return errors.New("not there: " + read(console))
		}
		out, err := m.try(t.Context(), "systemctl", "is-system-running", "--wait")
		if err != nil {
			return fmt.Errorf("%w: %s: %s", err, out, read(console))
		}
		return nil
	})
}

// roomForInotify raises a bound that a second systemd often meets: inotify
// instances are counted over all of a user's processes, 128 by default
// (inotify(7)), and root's are many.
func roomForInotify(t *testing.T) {
	t.Helper()
	const bound, enough = "/proc/sys/fs/inotify/max_user_instances", 1024
	before := read(bound)
	if n, err := strconv.Atoi(strings.TrimSpace(before)); err != nil || n >= enough {
		return
	}
	must(t, os.WriteFile(bound, []byte(strconv.Itoa(enough)), 0o600))
	t.Cleanup(func() { _ = os.WriteFile(bound, []byte(before), 0o600) })
}

// try runs a command in the machine.
func (m *machine) try(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.init), "--all", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is [machine.try] for what has to work.
func (m *machine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.try(t.Context(), args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// as runs a command as alice, in her session.
func (m *machine) as(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return m.try(t.Context(), append([]string{"runuser", "-u", "alice", "--", "env", "HOME=/home/alice",
		"XDG_RUNTIME_DIR=/run/user/1000", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus"}, args...)...)
}

// property asks systemd about a unit, of the system or of alice.
func (m *machine) property(t *testing.T, unit, name string) string {
	t.Helper()
	args := []string{"systemctl", "show", "--property", name, "--value", unit}
	if unit == helperUnit {
		out, err := m.as(t, append(args, "--user")...)
		if err != nil {
			t.Fatalf("%s of %s: %v\n%s", name, unit, err, out)
		}
		return out
	}
	return m.run(t, args...)
}

// status is what the administrator sees.
func (m *machine) status(t *testing.T) (status.Report, error) {
	t.Helper()
	var r status.Report
	out, err := m.try(t.Context(), "smime-agent", "status", "--json")
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() > 2) {
		return r, fmt.Errorf("%w: %s", err, out)
	}
	return r, json.Unmarshal([]byte(out), &r)
}

// await waits for a status.
func (m *machine) await(t *testing.T, limit time.Duration, what string, want func(status.Report) bool) status.Report {
	t.Helper()
	var last status.Report
	m.eventually(t, limit, what, func() error {
		r, err := m.status(t)
		if err != nil {
			return err
		}
		if last = r; !want(r) {
			raw, _ := json.MarshalIndent(r, "", "  ")
			return fmt.Errorf("status: %s", raw)
		}
		return nil
	})
	return last
}

func (m *machine) eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v\n%s", what, limit, err, m.journal())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// journal is what helps to find out what went wrong.
func (m *machine) journal() string {
	if m.init == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := m.try(ctx, "journalctl", "--no-pager", "--lines=40")
	return out + "\n" + read(filepath.Join(m.root, "var/log/smime-agent/agent.log")) +
		read(filepath.Join(m.root, "home/alice/.local/state/smime-agent/helper.log"))
}

// path is a place in the machine, seen from here.
func (m *machine) path(p string) string { return filepath.Join(m.root, p) }

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var problems bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, problems.String())
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}
