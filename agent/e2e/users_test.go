//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

// person is an account of this machine that a test acts as.
type person struct {
	account, mailbox string
	uid, gid         uint32
}

// people are accounts that every Debian has; nobody logs in with them.
func people(t *testing.T) []person {
	t.Helper()
	needRoot(t)
	var all []person
	for _, name := range []string{"daemon", "bin"} {
		u, err := user.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		all = append(all, person{name, name + "@example.com", uint32(uid), uint32(gid)})
	}
	return all
}

func (p person) id() string { return fmt.Sprintf("uid:%d", p.uid) }

// as runs a program as that person and gives what it printed and its exit code.
func (w *world) as(p person, program string, args ...string) (string, int) {
	w.t.Helper()
	cmd := w.Command(w.within(), program, args...)
	if filepath.IsAbs(program) {
		cmd.Path = program
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid}}
	out, err := cmd.CombinedOutput()
	return string(out), exitOf(err)
}

// says runs smime-agent as that person.
func (w *world) says(p person, args ...string) (string, int) {
	return w.as(p, "smime-agent", append(args, "--address", w.Address())...)
}

// TestTwoUsers: on one machine neither sees nor moves the other's enrollment.
func TestTwoUsers(t *testing.T) {
	onlyFull(t, "it acts as two other users")
	t.Parallel()
	two := people(t)
	w := company(t, func(w *e2e.World) {
		w.Consent, w.Employees = "ask", nil
		for _, p := range two {
			w.Employees = append(w.Employees, e2e.Employee{Account: p.account, Mailbox: p.mailbox, Given: p.account, Surname: "Example"})
		}
	})
	w.must(os.MkdirAll(filepath.Join(w.Dir, "home"), 0o755))
	w.open()
	for _, p := range two {
		w.login(e2e.HelperOptions{Account: p.account, UID: p.uid, GID: p.gid})
	}
	w.await("both questions", func(r status.Report) bool {
		return has(two[0].mailbox, enroll.Wanted)(r) && has(two[1].mailbox, enroll.Wanted)(r)
	})
	for i, p := range two {
		w.keepsOut(p, two[1-i], "approve", "later", "decline")
	}
	for _, p := range two {
		if out, code := w.says(p, "approve"); code != 0 {
			t.Fatalf("%s cannot approve his own: %d %s", p.account, code, out)
		}
		w.await("a certificate of "+p.account, has(p.mailbox, enroll.Active))
	}
	for i, p := range two {
		w.keepsOut(p, two[1-i], "renew", "prove")
		w.keepsHome(p, two[1-i])
	}
	r, err := w.Report(w.within())
	w.must(err)
	if len(r.Credentials) != 2 {
		t.Errorf("%d credentials", len(r.Credentials))
	}
}

// TestTwoPasswords: two users of one machine, each with an NSS database under a
// primary password of his own, which each types when he is asked for it. Each has
// a proved certificate, and neither password opens the other's database.
func TestTwoPasswords(t *testing.T) {
	onlyFull(t, "it acts as two other users")
	t.Parallel()
	platformtest.NeedPrograms(t, "certutil")
	two := people(t)
	w := company(t, func(w *e2e.World) {
		w.Consent, w.Profile, w.Stores, w.Keys, w.Employees = "ask", "employee-dual", []string{"nss:default"}, []string{"p-256"}, nil
		for _, p := range two {
			w.Employees = append(w.Employees, e2e.Employee{Account: p.account, Mailbox: p.mailbox, Given: p.account, Surname: "Example"})
		}
	})
	w.must(os.MkdirAll(filepath.Join(w.Dir, "home"), 0o755))
	w.open()
	databases := make([]string, len(two))
	for i, p := range two {
		databases[i] = w.passwordedNSS(p)
		w.login(e2e.HelperOptions{Account: p.account, UID: p.uid, GID: p.gid, Env: w.typing("typist-"+p.account, passwordOf(p)).Env})
	}
	w.await("both questions", func(r status.Report) bool {
		return has(two[0].mailbox, enroll.Wanted)(r) && has(two[1].mailbox, enroll.Wanted)(r)
	})
	for _, p := range two {
		if out, code := w.says(p, "approve"); code != 0 {
			t.Fatalf("%s cannot approve his own: %d %s", p.account, code, out)
		}
	}
	for i, p := range two {
		c, _ := credential(w.await("a certificate of "+p.account, has(p.mailbox, enroll.Active)), p.mailbox, enroll.Active)
		if c.Store != "nss:default" || !c.Proof.OK() || !c.Proof.Signs || !c.Proof.Decrypts {
			t.Errorf("%s: %+v, proof %+v", p.account, c, c.Proof)
		}
		w.ledgerOf(c)
		list := func(by person) (string, int) {
			return w.as(p, "/usr/bin/certutil", "-K", "-d", "sql:"+databases[i], "-f", filepath.Join(w.Dir, "password-"+by.account))
		}
		if out, code := list(p); code != 0 || !strings.Contains(out, string(c.ID)) {
			t.Errorf("%s's own password: %d %s", p.account, code, out)
		}
		if out, code := list(two[1-i]); code == 0 || strings.Contains(out, string(c.ID)) {
			t.Errorf("the other's password opens %s's database: %s", p.account, out)
		}
	}
}

func passwordOf(p person) string { return "secret of " + p.account }

// passwordedNSS makes a person's database, and a file with its password.
func (w *world) passwordedNSS(p person) string {
	w.t.Helper()
	dir, file := filepath.Join(w.Home(p.account), ".pki", "nssdb"), filepath.Join(w.Dir, "password-"+p.account)
	w.must(os.WriteFile(file, []byte(passwordOf(p)+"\n"), 0o644))
	w.must(os.MkdirAll(dir, 0o700))
	w.run("certutil", "-N", "-d", "sql:"+dir, "-f", file)
	w.run("chown", "-R", fmt.Sprintf("%d:%d", p.uid, p.gid), w.Home(p.account))
	return dir
}

// keepsOut has a person look, and try to move what is another's.
func (w *world) keepsOut(p, other person, verbs ...string) {
	w.t.Helper()
	before, err := w.Report(w.within())
	w.must(err)
	theirs, _ := newest(before, other.mailbox)
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"doctor"}, {"policy"}} {
		out, _ := w.says(p, args...)
		for _, secret := range []string{other.mailbox, string(theirs.ID), `"` + other.id() + `"`} {
			if strings.Contains(out, secret) {
				w.t.Errorf("%s sees %s of %s in %v:\n%s", p.account, secret, other.account, args, out)
			}
		}
	}
	for _, verb := range append(verbs, "enroll") {
		for _, target := range []string{string(theirs.ID), other.mailbox} {
			if out, code := w.says(p, verb, target); code != 1 || !strings.Contains(out, "nothing of yours") {
				w.t.Errorf("%s tries %s %s: exit code %d, %s", p.account, verb, target, code, out)
			}
		}
	}
	after, err := w.Report(w.within())
	w.must(err)
	now, _ := newest(after, other.mailbox)
	if now.ID != theirs.ID || now.State != theirs.State || now.Consent != nil && now.Consent.Verdict != theirs.Consent.Verdict {
		w.t.Errorf("%s moved %+v to %+v", p.account, theirs, now)
	}
}

// keepsHome: a home is for its owner, and the service's folders for the service.
func (w *world) keepsHome(p, other person) {
	w.t.Helper()
	ls, err := exec.LookPath("ls")
	w.must(err)
	for _, dir := range []string{w.Home(other.account), w.Dir + "/agent/state", w.Dir + "/agent/log"} {
		info, err := os.Stat(dir)
		w.must(err)
		if _, code := w.as(p, ls, dir); code == 0 || info.Mode().Perm()&0o007 != 0 {
			w.t.Errorf("%s may look into %s (%v)", p.account, dir, info.Mode())
		}
	}
	err = filepath.WalkDir(w.Home(other.account), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && strings.Contains(path, "smime-agent") {
			w.t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	w.must(err)
}
