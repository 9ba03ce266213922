package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// Where the machine sees central management's packages.
const (
	centralInMachine    = "/opt/central/smime-central_0.deb"
	centralRPMInMachine = "/opt/central/smime-central.rpm"
)

// centralFiles are what to bind into a machine for [asCentral].
func centralFiles(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		builtOf(t, centralName, ".deb"): centralInMachine,
		builtOf(t, centralName, ".rpm"): centralRPMInMachine,
	}
}

// asCentral takes a machine through the life of central management's package:
// installed, founded and started by what the documentation says, killed, upgraded
// while an enrollment waits, backed up while it works, stopped, restored, removed,
// purged. Its CA and its record outlive all of it.
func asCentral(t *testing.T, m *machine) {
	c := &central{machine: m}
	c.unfounded(t)
	c.install(t)
	c.hardening(t)
	c.policy(t)
	c.join(t)
	c.issue(t)
	agent := c.enrolling(t)
	c.killed(t)
	c.issue(t)
	c.upgraded(t)
	c.approved(t, agent)
	c.rotated(t)
	c.backedUp(t)
	c.removed(t)
	c.purged(t)
	c.asRPM(t)
}

// unfounded: what is installed and not founded says so, once, and what to do.
func (c *central) unfounded(t *testing.T) {
	const first = "smime-central init --organization"
	if said := c.apt(t, "install", centralInMachine); !strings.Contains(said, first) {
		t.Errorf("installing does not say what is next:\n%s", said)
	}
	if out, err := c.try(t.Context(), "systemctl", "enable", "--now", centralUnit); err == nil {
		t.Errorf("a server that is not founded starts: %s", out)
	}
	said := c.run(t, "journalctl", "--no-pager", "--output=cat", "--unit="+centralUnit)
	if sentence := "no server is founded in " + centralHome + " yet\nMake one there: " + first; strings.Count(said, sentence) != 1 {
		t.Errorf("want once %q:\n%s", sentence, said)
	}
	for name, want := range map[string]string{"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "78"} {
		if got := c.property(t, centralUnit, name); got != want {
			t.Errorf("%s of what is not founded is %s, want %s", name, got, want)
		}
	}
	c.run(t, "systemctl", "disable", centralUnit)
	if out, err := c.try(t.Context(), "runuser", "-u", "alice", "--", centralName, "devices"); err == nil || !strings.Contains(out, "only root can do this") {
		t.Errorf("alice's command gives %v: %s", err, out)
	}
}

// install runs the script of docs/central-management.md.
func (c *central) install(t *testing.T) {
	ports, err := e2e.FreePorts("127.0.0.1", 3)
	must(t, err)
	c.addr, c.figures = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[2]
	const example = "--host pki.example.com"
	script := scriptOf(t, "central-management.md")
	if !strings.Contains(script, example) || strings.Count(script, "\n") > 5 {
		t.Fatalf("the script in docs/central-management.md has no %q, or more than three commands:\n%s", example, script)
	}
	script = strings.Replace(script, example, "--host 127.0.0.1 --listen "+c.addr+" --web 127.0.0.1:"+ports[1], 1)
	said := c.run(t, "sh", "-e", "-c", "cd /opt/central && exec sh -e -c \"$0\"", script)
	if !strings.Contains(said, "smime-central token create") || strings.Contains(said, "server-stub") {
		t.Errorf("founding names other commands than the package has:\n%s", said)
	}
	c.asServer(t, "devices") // at once: systemctl waited until it served
	if got := c.property(t, centralUnit, "UnitFileState"); got != "enabled" {
		t.Errorf("%s is %s", centralUnit, got)
	}
	for path, want := range map[string]string{
		centralHome + "/ca/issuing.key": "600 smime-central:smime-central", centralHome + "/server.yaml": "smime-central:smime-central",
		"/usr/lib/systemd/system/" + centralUnit: "644 root:root", "/etc/smime-central/server.yaml": "smime-central:smime-central",
	} {
		if got := c.run(t, "stat", "--dereference", "--format=%a %U:%G", path); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if out := c.run(t, centralName, "version"); !strings.HasPrefix(out, centralName+" 0.") {
		t.Errorf("version: %s", out)
	}
}

// policy puts in force: alice at once, the one of [central.enrolling] after an administrator.
func (c *central) policy(t *testing.T) {
	for name, text := range map[string]string{
		"people.csv": "account,mailbox,given_name,surname,display_name,department\nalice,alice@example.com,Alice,Example,Alice Example,Sales\n" +
			"root,root@example.com,Ruth,Example,Ruth Example,Office\n",
		"policy.yaml": "organization: {name: Example GmbH, country: DE, identifier: NTRDE-DER3306.HRB12345}\nrules:\n" +
			"  - {departments: [Sales], profiles: [employee-dual], consent: silent}\n" +
			"  - {departments: [Office], profiles: [employee-sign], consent: silent, stores: [file], approval: administrator}\n",
	} {
		must(t, os.WriteFile(c.path(centralHome+"/"+name), []byte(text), 0o600)) // it stays the server's own
	}
	c.asServer(t, "policy", "apply")
}

// enrolling starts the agent's own programs beside the machine and waits for a
// request that waits for an administrator.
func (c *central) enrolling(t *testing.T) *world {
	w := company(t, nil)
	ca := filepath.Join(w.Dir, "server-ca.pem") // the agent takes it from root's folders only
	must(t, os.WriteFile(ca, []byte(read(c.path(centralHome+"/transport/ca.crt"))), 0o600))
	must(t, w.WriteSettingsFor(c.addr, ca, e2e.TokenIn(c.asServer(t, "token", "create"))))
	must(t, w.StartAgent(w.within()))
	w.login(e2e.HelperOptions{})
	w.await("a request that waits", has("root@example.com", enroll.Submitted))
	return w
}

// approved: what was under way before goes to its end.
func (c *central) approved(t *testing.T, w *world) {
	reference := regexp.MustCompile(`"reference": *"([^"]+)"`).FindStringSubmatch(c.asServer(t, "requests", "--json"))
	if reference == nil {
		t.Fatalf("nothing waits: %s", c.asServer(t, "requests"))
	}
	c.asServer(t, "request", "approve", reference[1])
	w.await("a proved certificate", func(r status.Report) bool {
		cred, ok := credential(r, "root@example.com", enroll.Active)
		return ok && cred.Proof.OK()
	})
	c.issued = append(c.issued, reference[1])
	c.has(t, c.issued...)
	w.Close() // the next steps count the calls of one device
}

// upgraded goes to a higher version and back, each time with another process and
// the same record, and leaves an administrator's change alone.
func (c *central) upgraded(t *testing.T) {
	const conffile, mark = "/etc/logrotate.d/smime-central", "# ours\n"
	must(t, os.WriteFile(c.path(conffile), []byte(mark+read(c.path(conffile))), 0o644))
	for _, step := range []struct{ version, path string }{
		{"999.0.0", c.repacked(t, builtOf(t, centralName, ".deb"), "999.0.0")},
		{c.version(t, centralName), centralInMachine},
	} {
		before := c.property(t, centralUnit, "MainPID")
		c.apt(t, "install", "--allow-downgrades", step.path)
		if got := c.version(t, centralName); got != step.version {
			t.Errorf("installed: %s, want %s", got, step.version)
		}
		if after := c.property(t, centralUnit, "MainPID"); after == before || after == "0" {
			t.Errorf("after the change to %s process %s runs, before %s", step.version, after, before)
		}
		c.has(t, c.issued...)
		c.issue(t)
	}
	if !strings.HasPrefix(read(c.path(conffile)), mark) {
		t.Errorf("the administrator's change of %s is gone", conffile)
	}
	c.run(t, "systemctl", "disable", "--now", centralUnit)
	c.apt(t, "install", "--reinstall", centralInMachine)
	if got := c.property(t, centralUnit, "ActiveState"); got != "inactive" {
		t.Errorf("an upgrade made %s what the administrator had switched off", got)
	}
	c.run(t, "systemctl", "enable", "--now", centralUnit)
}

// rotated: the audit log goes on in a new file.
func (c *central) rotated(t *testing.T) {
	c.run(t, "logrotate", "--force", "/etc/logrotate.d/smime-central")
	c.asServer(t, "token", "create")
	old, now := read(c.path(centralHome+"/audit.log.1")), read(c.path(centralHome+"/audit.log"))
	if !strings.Contains(old, "CreateToken") || !strings.Contains(now, "CreateToken") || strings.Count(now, "\n") != 1 {
		t.Errorf("the audit log before:\n%sand after:\n%s", old, now)
	}
}

// removed: removing stops it, and installing again takes up where it was.
func (c *central) removed(t *testing.T) {
	c.apt(t, "remove", centralName)
	c.gone(t)
	c.apt(t, "install", centralInMachine)
	c.answers(t)
	c.has(t, c.issued...)
	c.issue(t)
}

// purged: even purging leaves the CA's keys and the record, says so, and a package
// that comes later works on with them.
func (c *central) purged(t *testing.T) {
	root := read(c.path(centralHome + "/ca/root.key"))
	if said := c.apt(t, "purge", centralName); !strings.Contains(said, centralHome+" stays. It has the keys of your CA") {
		t.Errorf("purging does not say what stays:\n%s", said)
	}
	c.gone(t)
	if root == "" || read(c.path(centralHome+"/ca/root.key")) != root {
		t.Error("purging touched the CA's key")
	}
	for _, path := range []string{"/etc/smime-central", "/etc/logrotate.d/smime-central", "/usr/bin/server-stub", "/etc/systemd/system/multi-user.target.wants/" + centralUnit} {
		if _, err := os.Lstat(c.path(path)); err == nil {
			t.Errorf("%s is left after purging", path)
		}
	}
	c.apt(t, "install", centralInMachine)
	if got := c.property(t, centralUnit, "ActiveState"); got != "inactive" {
		t.Errorf("a package that was installed anew is %s by itself", got)
	}
	c.run(t, "systemctl", "enable", "--now", centralUnit)
	c.has(t, c.issued...)
	c.issue(t)
	c.apt(t, "purge", centralName)
}

// asRPM goes the same way by rpm itself, without what the package depends on: it
// is the scripts that are tried, with rpm's arguments. At last nothing is there.
func (c *central) asRPM(t *testing.T) {
	rpm := func(args ...string) string {
		return c.run(t, append([]string{"rpm", "--dbpath", "/var/cache/rpm-central", "--nodeps"}, args...)...)
	}
	rpm("--install", centralRPMInMachine)
	c.run(t, "systemctl", "enable", "--now", centralUnit)
	c.has(t, c.issued...)
	before := c.property(t, centralUnit, "MainPID")
	rpm("--upgrade", "--force", centralRPMInMachine)
	if after := c.property(t, centralUnit, "MainPID"); after == before || after == "0" {
		t.Errorf("after an upgrade process %s runs, before %s", after, before)
	}
	c.issue(t)
	if said := rpm("--erase", centralName); !strings.Contains(said, centralHome+" stays.") {
		t.Errorf("erasing does not say what stays:\n%s", said)
	}
	c.gone(t)
	c.run(t, "find", centralHome, "-mindepth", "1", "-delete")
	if said := rpm("--install", centralRPMInMachine); !strings.Contains(said, "smime-central init") {
		t.Errorf("installing does not say what is next:\n%s", said)
	}
	rpm("--erase", centralName)
	for _, command := range [][]string{{"test", "-e", centralHome}, {"id", centralName}, {"systemctl", "cat", centralUnit}} {
		if out, err := c.try(t.Context(), command...); err == nil {
			t.Errorf("where nothing was founded, something is left: %s gives %s", command, out)
		}
	}
}

// gone: nothing runs, and nothing complains; the folder is as it was.
func (c *central) gone(t *testing.T) {
	t.Helper()
	if out, err := c.try(t.Context(), "pgrep", "--list-full", "^server-stub"); err == nil {
		t.Errorf("it still runs: %s", out)
	}
	if got := c.run(t, "stat", "--format=%a %U:%G", centralHome); got != "700 smime-central:smime-central" {
		t.Errorf("%s: %s", centralHome, got)
	}
	c.eventually(t, 10*time.Second, "a quiet systemd", func() error {
		if out := c.run(t, "systemctl", "list-units", "--all", "--no-legend", "--plain", "smime*"); strings.Contains(out, "failed") {
			return fmt.Errorf("systemd complains: %s", out)
		}
		return nil
	})
}
