//go:build linux && systemd

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/server-stub/directory"
)

// desktopUnit is alice's login: a PAM session of its own, whose first process does
// what a desktop does when it comes up.
const desktopUnit = "alice-desktop.service"

// desktopScript and desktopTarget are what startplasma-x11 and gnome-session do
// (systemd.special(7), graphical-session.target and xdg-desktop-autostart.target).
const (
	desktopScript = `#!/bin/sh
systemctl --user import-environment DISPLAY LANG
systemctl --user start desktop.target
exec sleep infinity
`
	desktopTarget = `[Unit]
BindsTo=graphical-session.target
Before=graphical-session.target
Wants=xdg-desktop-autostart.target
Before=xdg-desktop-autostart.target
`
)

// moveIn has alice log in at a desktop, and then rolls the agent out once more, by
// the script of docs/deploy.md.
func (o *office) moveIn(t *testing.T) {
	must(t, os.WriteFile(o.path("/usr/local/bin/desktop"), []byte(desktopScript), 0o755))
	must(t, os.WriteFile(o.path("/etc/systemd/user/desktop.target"), []byte(desktopTarget), 0o644))
	script := strings.Replace(scriptOf(t, "deploy.md"), "smime.example.com:8443", o.addr, 1)
	must(t, os.MkdirAll(o.path("/etc/smime-agent"), 0o755))
	for path, text := range map[string]string{
		"/opt/rollout/rollout.sh": script, "/opt/rollout/server-ca.pem": read(o.path(centralHome + "/transport/ca.crt")),
		"/etc/smime-agent/config.yaml": "proxy: none\nsync_floor: 1s\nretry_cap: 5s\n",
	} {
		must(t, os.WriteFile(o.path(path), []byte(text), 0o644))
	}
	o.logIn(t)
	o.run(t, "env", "TOKEN="+e2e.TokenIn(o.asServer(t, "token", "create")), "sh", "-c", "cd /opt/rollout && exec sh ./rollout.sh")
	o.joined(t)
}

func (o *office) joined(t *testing.T) {
	t.Helper()
	o.await(t, time.Minute, "joining, and alice's helper", func(s status.Report) bool {
		return s.Device.Joined && len(s.Users) == 1 && s.Users[0].Account == "alice"
	})
}

func (o *office) logIn(t *testing.T) {
	t.Helper()
	o.run(t, "systemd-run", "--quiet", "--unit="+desktopUnit, "--uid=alice", "--property=PAMName=login", "--property=WorkingDirectory=/home/alice",
		"--setenv=XDG_SESSION_TYPE=x11", "--setenv=XDG_SESSION_CLASS=user", "--setenv=LANG=C.UTF-8", "--setenv=DISPLAY="+o.desk.display, "/usr/local/bin/desktop")
	o.eventually(t, 30*time.Second, "a helper that knows the display", func() error {
		out, err := o.as(t, "systemctl", "--user", "show", "--value", "--property", "MainPID", helperUnit)
		if err != nil || out == "0" {
			return fmt.Errorf("%w: %s", err, out)
		}
		if env := o.run(t, "sh", "-c", "tr '\\0' '\\n' < /proc/"+out+"/environ || true"); !strings.Contains(env, "DISPLAY="+o.desk.display) {
			return errors.New("it does not: " + env)
		}
		return nil
	})
	t.Log(o.run(t, "loginctl", "--no-legend", "list-sessions"))
}

// dialog waits for a window, keeps its picture and presses keys.
func (o *office) dialog(t *testing.T, title, picture string, keys ...string) {
	t.Helper()
	o.shown(t, title)
	time.Sleep(500 * time.Millisecond) // the window is there before its content
	o.desk.keep(picture)
	o.desk.press(keys...)
}

func (o *office) shown(t *testing.T, title string) {
	t.Helper()
	o.desk.w.t = t
	o.eventually(t, 30*time.Second, "a window", func() error {
		if !o.visible(t, title) {
			return errors.New("none is shown")
		}
		return nil
	})
}

func (o *office) visible(t *testing.T, title string) bool {
	t.Helper()
	return output(t, "sh", "-c", "DISPLAY="+o.desk.display+" xdotool search --onlyvisible --name '"+title+"' || true") != ""
}

// code is what was mailed to alice last.
func (o *office) code(t *testing.T) (code string) {
	t.Helper()
	o.eventually(t, 30*time.Second, "a mail with a code", func() error {
		for _, m := range o.post.Mails() {
			if found := regexp.MustCompile(`--code ([A-Z2-7-]+)`).FindStringSubmatch(m.Text); found != nil && m.To == alice {
				code = found[1]
			}
		}
		if code == "" {
			return errors.New("no mail with a code")
		}
		return nil
	})
	return code
}

// proved waits until alice has one proved credential in each of so many stores.
func (o *office) proved(t *testing.T, stores int) status.Report {
	t.Helper()
	return o.await(t, time.Minute, "proved certificates", func(s status.Report) bool {
		active := states(s, enroll.Active)
		return len(active) == stores && len(s.Users) == 1 && !slices.ContainsFunc(active, func(c status.Credential) bool { return !c.Proof.OK() || c.Problem != nil })
	})
}

// enrolled: alice is asked, types the mailed code, and has a proved certificate of
// the CA behind EST, which others find in the directory.
func (o *office) enrolled(t *testing.T) {
	o.dialog(t, "Example GmbH", "systemd-consent", "Tab", "Tab", "Return")
	code := o.code(t)
	o.shown(t, "Confirm your mailbox")
	time.Sleep(500 * time.Millisecond)
	o.desk.keep("systemd-code")
	o.desk.xdotool("mousemove", "512", "345", "sleep", "0.3", "type", code)
	o.desk.press("Return")
	o.report = o.proved(t, 1)
	c := states(o.report, enroll.Active)[0]
	if !strings.HasPrefix(c.Store, "nss:") || c.Issuer != o.est.Issuing.Cert.Subject.String() || !c.Proof.Signs || !c.Proof.Decrypts {
		t.Errorf("%+v, proof %+v", c, c.Proof)
	}
	if list := output(t, "certutil", "-L", "-d", "sql:"+o.path("/home/alice/.pki/nssdb")); !strings.Contains(list, "u,u,u") {
		t.Errorf("no certificate with its key in alice's NSS database:\n%s", list)
	}
	o.eventually(t, 30*time.Second, "the certificate in the directory", func() error {
		o.asServer(t, "directory", "--now")
		if found, _ := o.directory.find(alice); len(found) != 1 {
			return fmt.Errorf("%d are there: %s", len(found), o.asServer(t, "directory"))
		}
		return nil
	})
	if out := o.asServer(t, "directory", "--json"); !strings.Contains(out, directory.Published) {
		t.Errorf("directory: %s", out)
	}
	o.issued = append(o.issued, regexp.MustCompile(`"serial": *"([^"]+)"`).FindStringSubmatch(o.asServer(t, "ledger", "--json"))[1])
}

// token: policy wants a second key in a PKCS #11 token, which the helper makes and
// uses under the unit of the user.
func (o *office) token(t *testing.T) {
	conf := "directories.tokendir = /home/alice/.local/share/softhsm\nobjectstore.backend = file\n"
	for _, dir := range []string{"/home/alice/.config/softhsm2", "/home/alice/.local/share/softhsm"} {
		o.run(t, "runuser", "-u", "alice", "--", "mkdir", "--parents", dir)
	}
	must(t, os.WriteFile(o.path("/home/alice/.config/softhsm2/softhsm2.conf"), []byte(conf), 0o644))
	// By a script that is removed: the journal keeps command lines.
	must(t, os.WriteFile(o.path("/home/alice/token"), []byte("softhsm2-util --init-token --free --label office --so-pin 00000000 --pin "+pinOfToken+"\n"), 0o644))
	if out, err := o.as(t, "sh", "/home/alice/token"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Remove(o.path("/home/alice/token")))
	o.rules(t, "consent: silent", "stores: [auto, \"pkcs11:office\"]", fmt.Sprintf("modules: [{path: %s, token_label: office}]", softhsm))
	o.run(t, "smime-agent", "sync")
	const title = "PIN of the smart card"
	o.shown(t, title)
	time.Sleep(500 * time.Millisecond)
	o.desk.keep("systemd-pin")
	o.eventually(t, 90*time.Second, "a proved key in the token", func() error {
		if o.visible(t, title) { // it is asked for each kind of work
			time.Sleep(500 * time.Millisecond)
			o.desk.xdotool("mousemove", "512", "345", "sleep", "0.3", "type", pinOfToken)
			o.desk.press("Return")
			time.Sleep(500 * time.Millisecond)
		}
		r, err := o.status(t)
		if err != nil {
			return err
		}
		if active := states(r, enroll.Active); len(active) != 2 || !active[0].Proof.OK() || !active[1].Proof.OK() {
			return fmt.Errorf("%d are active", len(active))
		}
		return nil
	})
	o.report = o.proved(t, 2)
	if out := o.run(t, "pgrep", "--list-full", "--uid", "alice", "smime-helper"); strings.Count(out, "\n") != 0 {
		t.Errorf("not one helper: %s", out)
	}
}

// unchanged waits until all is as it was: the same device, the same certificates.
func (o *office) unchanged(t *testing.T, when string) {
	t.Helper()
	now := o.proved(t, len(states(o.report, enroll.Active)))
	serials := func(r status.Report) (all []string) {
		for _, c := range states(r, enroll.Active) {
			all = append(all, string(c.ID)+" "+c.Serial)
		}
		slices.Sort(all)
		return all
	}
	if now.Device.ID != o.report.Device.ID || !slices.Equal(serials(now), serials(o.report)) {
		t.Errorf("%s: %s of %s, before %s of %s", when, serials(now), now.Device.ID, serials(o.report), o.report.Device.ID)
	}
}

// killedBoth kills each program, and at last all of them at once.
func (o *office) killedBoth(t *testing.T) {
	units := []string{centralUnit, agentUnit, helperUnit}
	for _, round := range [][]string{{centralUnit}, {agentUnit}, {helperUnit}, units} {
		before, begin := map[string]string{}, time.Now()
		pids := []string{"kill", "-KILL"}
		for _, unit := range round {
			before[unit] = o.property(t, unit, "MainPID")
			pids = append(pids, before[unit])
		}
		o.run(t, pids...)
		for _, unit := range round {
			o.eventually(t, 20*time.Second, "restart of "+unit, func() error {
				if pid := o.property(t, unit, "MainPID"); pid == before[unit] || pid == "0" || o.property(t, unit, "ActiveState") != "active" {
					return errors.New("not started again")
				}
				return nil
			})
		}
		o.answers(t)
		o.unchanged(t, "after kill -9 of "+strings.Join(round, ", "))
		t.Logf("%s: killed, and all well again after %s", strings.Join(round, ", "), time.Since(begin).Round(100*time.Millisecond))
	}
}

// peered: the database knows the server by its account, over the socket and
// without a password (peer), also from the server's own user namespace.
func (o *office) peered(t *testing.T) {
	path := o.path(centralHome + "/server.yaml")
	before := read(path)
	dsn := regexp.MustCompile(`port=(\d+) dbname=smime user=smime`).FindStringSubmatch(before)
	if dsn == nil {
		t.Fatalf("server.yaml: %s", before)
	}
	o.run(t, "runuser", "-u", "postgres", "--", "psql", "--port", dsn[1], "--quiet", "--command", `create role "smime-central" login in role smime`)
	after := strings.Replace(before, "host=127.0.0.1 "+dsn[0], "host=/run/postgresql port="+dsn[1]+" dbname=smime user=smime-central", 1)
	after = strings.Replace(after, credentialFolder+"/store.password", "", 1)
	must(t, os.WriteFile(path, []byte(after), 0o600))
	o.run(t, "systemctl", "restart", centralUnit)
	o.answers(t)
	o.has(t, o.issued...)
	if out := o.run(t, "runuser", "-u", "postgres", "--", "psql", "--port", dsn[1], "--tuples-only", "--command",
		"select count(*) from pg_stat_activity where usename = 'smime-central' and client_addr is null"); strings.TrimSpace(out) == "0" {
		t.Error("the server is not at the socket")
	}
	must(t, os.WriteFile(path, []byte(before), 0o600))
	o.run(t, "systemctl", "restart", centralUnit)
	o.answers(t)
}

// journaled: the journal has lines of each program under its unit, and no secret.
func (o *office) journaled(t *testing.T) {
	for unit, args := range map[string][]string{agentUnit: {"--unit=" + agentUnit}, centralUnit: {"--unit=" + centralUnit}, helperUnit: {"_UID=1000", "USER_UNIT=" + helperUnit}} {
		out := o.run(t, append([]string{"journalctl", "--no-pager", "--output=short-iso", "--lines=12"}, args...)...)
		t.Logf("%s:\n%s", unit, out)
		if !strings.Contains(out, "smime") && !strings.Contains(out, "server-stub") {
			t.Errorf("the journal has nothing of %s:\n%s", unit, out)
		}
	}
	for _, secret := range []string{storePassword, mailPassword, ldapPass, pinOfToken} {
		// SoftHSM logs its own command line, which is the test's.
		if out, err := o.try(t.Context(), "sh", "-c", "journalctl --output=export | grep -aF '"+secret+"' | grep -av '^_CMDLINE=softhsm2-util '"); err == nil {
			t.Errorf("the journal has the secret %q: %s", secret, out)
		}
		for _, place := range []string{"/var", "/etc", "/home"} {
			if out, err := o.try(t.Context(), "sh", "-c", "grep -rlaF '"+secret+"' "+place+" | grep -v -e ^"+secretsFolder+"/ -e ^/var/log/journal/"); err == nil {
				t.Errorf("the secret %q is in %s", secret, out)
			}
		}
	}
}

// loggedOut ends alice's session; her service manager ends ten seconds after
// (UserStopDelaySec= of logind.conf(5)).
func (o *office) loggedOut(t *testing.T) {
	pid, begin := o.property(t, helperUnit, "MainPID"), time.Now()
	o.run(t, "systemctl", "stop", desktopUnit)
	o.eventually(t, 30*time.Second, "the end of alice's helper", func() error { return o.dead(t, pid) })
	t.Logf("the helper ended %s after the session", time.Since(begin).Round(100*time.Millisecond))
	o.await(t, 30*time.Second, "nobody there", func(s status.Report) bool { return len(s.Users) == 0 })
	if out := o.run(t, "journalctl", "--no-pager", "--output=cat", "--lines=50", "--unit=user@1000.service"); strings.Contains(out, "timed out") {
		t.Errorf("the helper did not end by itself: %s", out)
	}
	o.logIn(t)
	o.unchanged(t, "after logging out and in")
}

// restarted restarts the machine, from within.
func (o *office) restarted(t *testing.T) {
	t.Helper()
	begin := time.Now()
	_, _ = o.try(t.Context(), "systemctl", "reboot") // its answer may be lost
	select {
	case <-o.off:
	case <-time.After(60 * time.Second):
		t.Fatalf("it does not go down: %s", o.journal())
	}
	down := time.Since(begin)
	o.boot(o.top, o.binds)
	t.Logf("down in %s, up after %s", down.Round(100*time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
	for _, unit := range []string{agentUnit, centralUnit} {
		o.eventually(t, 30*time.Second, unit, func() error {
			if got := o.property(t, unit, "ActiveState"); got != "active" {
				return errors.New(got)
			}
			return nil
		})
		last := o.run(t, "journalctl", "--no-pager", "--output=cat", "--boot=-1", "--lines=40", "--unit="+unit)
		if strings.Contains(last, "timed out") {
			t.Errorf("%s did not end by itself: %s", unit, last)
		}
	}
	o.answers(t)
	t.Logf("central management was started anew %s times while the database was not there", o.property(t, centralUnit, "NRestarts"))
}

// another gives alice another mailbox.
func (o *office) another(t *testing.T, mailbox string) {
	t.Helper()
	path := o.path(centralHome + "/people.csv")
	must(t, os.WriteFile(path, []byte(read(path)+"alice,"+mailbox+",Alice,Example,Alice Example,Sales\n"), 0o600))
}

// finished waits for the proved certificate of what was begun earlier.
func (o *office) finished(t *testing.T, mailbox string, begun status.Credential) {
	t.Helper()
	r := o.await(t, time.Minute, "the certificate of "+mailbox, func(s status.Report) bool {
		c, ok := credential(s, mailbox, enroll.Active)
		return ok && c.Proof.OK()
	})
	if c, _ := credential(r, mailbox, enroll.Active); c.ID != begun.ID {
		t.Errorf("%s is of %s, begun was %s", mailbox, c.ID, begun.ID)
	}
}

// rebootedAsked: a question that is open when the machine goes down is asked again.
func (o *office) rebootedAsked(t *testing.T) {
	const mailbox = "second@example.com"
	o.another(t, mailbox)
	o.rules(t, "consent: ask", "stores: [auto]")
	o.run(t, "smime-agent", "sync")
	o.shown(t, "Example GmbH")
	r := o.await(t, 30*time.Second, "an enrollment that waits", has(mailbox, enroll.Wanted))
	begun, _ := credential(r, mailbox, enroll.Wanted)
	o.restarted(t)
	o.logIn(t)
	o.joined(t)
	o.dialog(t, "Example GmbH", "systemd-after-reboot", "Tab", "Tab", "Return")
	o.finished(t, mailbox, begun)
}

// rebootedWaiting: what waits for an administrator when the machine goes down is
// finished afterwards, as the same enrollment.
func (o *office) rebootedWaiting(t *testing.T) {
	const mailbox = "third@example.com"
	o.another(t, mailbox)
	o.rules(t, "consent: silent", "stores: [auto]", "approval: administrator")
	o.run(t, "smime-agent", "sync")
	r := o.await(t, time.Minute, "a request that waits", has(mailbox, enroll.Submitted))
	begun, _ := credential(r, mailbox, enroll.Submitted)
	o.restarted(t)
	o.logIn(t)
	o.await(t, time.Minute, "the request again", has(mailbox, enroll.Submitted))
	reference := regexp.MustCompile(`"reference": *"([^"]+)"`).FindStringSubmatch(o.asServer(t, "requests", "--json"))
	if reference == nil {
		t.Fatalf("nothing waits: %s", o.asServer(t, "requests"))
	}
	o.asServer(t, "request", "approve", reference[1])
	o.finished(t, mailbox, begun)
}

// stoppedBoth: all end by themselves, within what their units allow.
func (o *office) stoppedBoth(t *testing.T) {
	for _, unit := range []string{helperUnit, agentUnit, centralUnit} {
		begin := time.Now()
		if unit == helperUnit {
			if out, err := o.as(t, "systemctl", "--user", "stop", unit); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		} else {
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			out, err := o.try(ctx, "systemctl", "stop", unit)
			cancel()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		if result, code := o.property(t, unit, "Result"), o.property(t, unit, "ExecMainStatus"); result != "success" || code != "0" {
			t.Errorf("%s ended with %s, code %s", unit, result, code)
		}
		t.Logf("%s stopped in %s", unit, time.Since(begin).Round(10*time.Millisecond))
	}
}
