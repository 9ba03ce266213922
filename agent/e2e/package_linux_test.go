package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

const (
	agentUnit  = "smime-agent.service"
	helperUnit = "smime-helper.service"
	// worstExposure is the gate on what systemd makes of the unit, times ten.
	worstExposure = "20"
)

// Where the machine sees the packages.
const (
	inMachine    = "/opt/rollout/smime-agent_0.deb"
	rpmInMachine = "/opt/rollout/smime-agent.rpm"
)

// distVariable names the folder of the built packages; `make e2e-packages` sets it.
const distVariable = "SMIME_AGENT_DIST"

// built finds the agent's built package with this ending.
func built(t *testing.T, ending string) string {
	t.Helper()
	return builtOf(t, "smime-agent", ending)
}

func builtOf(t *testing.T, name, ending string) string {
	t.Helper()
	dir := os.Getenv(distVariable)
	if dir == "" {
		t.Skipf("SKIP: %s is not set: run `make e2e-packages`", distVariable)
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"*"+ending))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s has not exactly one package %s*%s: %v", dir, name, ending, found)
	}
	return found[0]
}

// rollout is one machine of a company that gets the package.
type rollout struct {
	*machine
	world *e2e.World
	token string
	// before is what lay on the machine before the package came.
	before map[string]bool
	report status.Report
}

// TestPackage takes one machine through the package's life: rolled out silently,
// proved, killed, upgraded, removed, installed again, purged.
func TestPackage(t *testing.T) {
	deb, rpm := built(t, ".deb"), built(t, ".rpm")
	platformtest.Need(t, "root", os.Geteuid() == 0)
	platformtest.NeedPrograms(t, "mmdebstrap", "systemd-nspawn", "nsenter", "apt-get", "certutil")
	r := &rollout{machine: newMachine(t)}
	r.found(t)
	r.prepare(t)
	binds := centralFiles(t)
	binds[deb], binds[rpm] = inMachine, rpmInMachine
	r.boot(t, binds)
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"central management's package", func(t *testing.T) { asCentral(t, r.machine) }},
		{"a user is logged in", r.login},
		{"apt install", r.install},
		{"hardening", r.hardening},
		{"upgrade and rollback in mid-enrollment", r.upgradedMidway},
		{"proved certificate", r.proved},
		{"kill -9", r.killed},
		{"a desktop comes up", r.desktop},
		{"a user reaches only his own", r.unprivileged},
		{"upgrade and rollback", r.upgraded},
		{"switched off stays off", r.switchedOff},
		{"remove and install again", r.removed},
		{"purge", r.purged},
		{"the rpm", r.asRPM},
	} {
		begin := time.Now()
		if !t.Run(step.name, step.do) {
			t.Fatalf("the steps after %q stand on it", step.name)
		}
		t.Logf("%-28s %s", step.name, time.Since(begin).Round(100*time.Millisecond))
	}
}

// found starts central management on this machine's loopback.
func (r *rollout) found(t *testing.T) {
	bin, err := filepath.Abs(filepath.Join("..", "..", "bin"))
	must(t, err)
	platformtest.NeedFile(t, "server-stub in bin (make build)", filepath.Join(bin, "server-stub"))
	r.world = &e2e.World{
		Bin: bin, Dir: t.TempDir(), Consent: "silent", Profile: "employee-dual", Rule: []string{"approval: administrator"},
		Employees: []e2e.Employee{{Account: "alice", Mailbox: "alice@example.com", Given: "Alice", Surname: "Example"}},
	}
	must(t, r.world.Founded(t.Context()))
	must(t, r.world.StartServer(t.Context()))
	t.Cleanup(r.world.Close)
	must(t, r.world.WriteSettings(t.Context()))
}

// prepare makes what is on the machine before: an account, a line or two of
// settings of its own, and in /opt/rollout what the script of the documentation
// expects beside itself.
func (r *rollout) prepare(t *testing.T) {
	output(t, "chroot", r.root, "useradd", "--create-home", "--uid", "1000", "alice")
	var server string
	for line := range strings.Lines(read(filepath.Join(r.world.Dir, "agent", "config.yaml"))) {
		if s, ok := strings.CutPrefix(line, "server: "); ok {
			server = strings.TrimSpace(s)
		}
	}
	r.token = strings.TrimSpace(read(filepath.Join(r.world.Dir, "agent", "token")))
	const example = "smime.example.com:8443"
	script := scriptOf(t, "deploy.md")
	if !strings.Contains(script, "server: "+example+"\n") {
		t.Fatalf("the script in docs/deploy.md sets no server %s", example)
	}
	must(t, os.MkdirAll(r.path("/opt/rollout"), 0o755))
	must(t, os.MkdirAll(r.path("/etc/smime-agent"), 0o755))
	// These are of a distribution's own packages; rpm does not remove what it was not told of.
	for _, dir := range []string{"/etc/xdg/autostart", "/usr/share/fish/vendor_completions.d", "/usr/share/zsh/site-functions"} {
		must(t, os.MkdirAll(r.path(dir), 0o755))
	}
	ca := read(filepath.Join(r.world.Dir, "central", "transport", "ca.crt"))
	for path, text := range map[string]string{
		"/opt/rollout/rollout.sh":      strings.Replace(script, example, server, 1),
		"/opt/rollout/server-ca.pem":   ca,
		"/etc/smime-agent/config.yaml": "proxy: none\nsync_floor: 1s\nlog_level: debug\n",
	} {
		must(t, os.WriteFile(r.path(path), []byte(text), 0o644))
	}
}

// scriptOf is the first shell script in a document.
func scriptOf(t *testing.T, document string) string {
	t.Helper()
	_, rest, _ := strings.Cut(read(filepath.Join("..", "..", "docs", document)), "```sh\n")
	script, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatalf("docs/%s has no script", document)
	}
	return script
}

// TestScriptsOfDocuments: the script that is tested is the one in both languages.
func TestScriptsOfDocuments(t *testing.T) {
	comment := regexp.MustCompile(`(?m)\s*#.*$`)
	english, chinese := comment.ReplaceAllString(scriptOf(t, "deploy.md"), ""), comment.ReplaceAllString(scriptOf(t, "deploy.zh-CN.md"), "")
	if english != chinese {
		t.Errorf("the scripts differ:\n%s\n%s", english, chinese)
	}
}

func (r *rollout) login(t *testing.T) {
	r.run(t, "loginctl", "enable-linger", "alice")
	r.eventually(t, 20*time.Second, "alice's service manager", func() error {
		out, err := r.as(t, "systemctl", "--user", "is-system-running", "--wait")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	r.before = r.files(t)
}

func (m *machine) apt(t *testing.T, args ...string) string {
	t.Helper()
	return m.run(t, append([]string{"apt-get", "--yes", "--quiet", "--no-install-recommends", "--option", "Dpkg::Use-Pty=0"}, args...)...)
}

// install runs the script of docs/deploy.md.
func (r *rollout) install(t *testing.T) {
	r.rollOut(t)
	for _, unit := range []string{agentUnit, helperUnit} {
		if got := r.property(t, unit, "ActiveState"); got != "active" {
			t.Errorf("%s is %s", unit, got)
		}
		if got := r.property(t, unit, "UnitFileState"); got != "enabled" {
			t.Errorf("%s is %s", unit, got)
		}
	}
	r.await(t, 30*time.Second, "joining", func(s status.Report) bool { return s.Device.Joined })
	r.await(t, 30*time.Second, "the helper of the user who was logged in", func(s status.Report) bool {
		return len(s.Users) == 1 && s.Users[0].Account == "alice"
	})
}

func (r *rollout) rollOut(t *testing.T) {
	t.Helper()
	r.run(t, "env", "TOKEN="+r.token, "sh", "-c", "cd /opt/rollout && exec sh ./rollout.sh")
}

func (r *rollout) hardening(t *testing.T) {
	r.run(t, "systemd-analyze", "security", "--no-pager", "--threshold="+worstExposure, agentUnit)
	pid := r.property(t, agentUnit, "MainPID")
	facts := r.run(t, "cat", "/proc/"+pid+"/status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(facts, want) {
			t.Errorf("the running service has not %q:\n%s", want, facts)
		}
	}
	for path, want := range map[string]fs.FileMode{
		"/var/lib/smime-agent": 0o700, "/var/log/smime-agent": 0o700, "/run/smime-agent": 0o755,
		"/usr/bin/smime-agent": 0o755, "/usr/lib/systemd/system/smime-agent.service": 0o644,
	} {
		if got := r.run(t, "stat", "--format=%a %U:%G", path); got != fmt.Sprintf("%o root:root", want) {
			t.Errorf("%s: %s, want %o root:root", path, got, want)
		}
	}
}

// upgradedMidway changes the version twice while an enrollment waits for an
// administrator, and then has him approve it. Later ones need nobody.
func (r *rollout) upgradedMidway(t *testing.T) {
	waits := func(s status.Report) bool {
		return s.Device.Joined && len(s.Users) == 1 && len(s.Credentials) == 1 && s.Credentials[0].State == enroll.Submitted
	}
	before := r.await(t, 60*time.Second, "a request that waits", waits)
	for _, step := range []struct{ version, path string }{{"999.0.0", r.repacked(t, built(t, ".deb"), "999.0.0")}, {r.version(t, "smime-agent"), inMachine}} {
		r.apt(t, "install", "--allow-downgrades", step.path)
		if got := r.version(t, "smime-agent"); got != step.version {
			t.Errorf("installed: %s, want %s", got, step.version)
		}
		now := r.await(t, 60*time.Second, "the request again under version "+step.version, waits)
		if now.Device.ID != before.Device.ID || now.Credentials[0].ID != before.Credentials[0].ID {
			t.Errorf("%s of device %s, before %s of device %s", now.Credentials[0].ID, now.Device.ID, before.Credentials[0].ID, before.Device.ID)
		}
	}
	reference := regexp.MustCompile(`"reference": *"([^"]+)"`).FindStringSubmatch(r.central(t, "requests", "--json"))
	if reference == nil {
		t.Fatalf("nothing waits: %s", r.central(t, "requests"))
	}
	r.central(t, "request", "approve", reference[1])
	now := r.await(t, 60*time.Second, "a proved certificate", usable)
	if now.Credentials[0].ID != before.Credentials[0].ID {
		t.Errorf("another enrollment was begun: %s, before %s", now.Credentials[0].ID, before.Credentials[0].ID)
	}
	r.world.Rule = nil
	must(t, r.world.WritePolicy("silent"))
	r.central(t, "policy", "apply")
}

func (r *rollout) central(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.world.Central(t.Context(), args...)
	must(t, err)
	return out
}

func usable(s status.Report) bool {
	return len(s.Credentials) == 1 && s.Credentials[0].State == enroll.Active && s.Credentials[0].Proof != nil && s.Credentials[0].Problem == nil
}

func (r *rollout) proved(t *testing.T) {
	r.report = r.await(t, 60*time.Second, "a proved certificate", usable)
	if c := r.report.Credentials[0]; !strings.HasPrefix(c.Store, "nss:") || c.Account != "alice" {
		t.Errorf("the certificate is in %s of %s", c.Store, c.Account)
	}
	r.keyIsThere(t)
	r.rollOut(t) // which must do nothing now, and not leave the token behind
	if _, err := os.Stat(r.path("/var/lib/smime-agent/join-token")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the token's file is still there: %v", err)
	}
	if out, err := exec.Command("grep", "-rlaF", r.token, r.path("etc"), r.path("var"), r.path("home"), r.path("root")).Output(); err == nil {
		t.Errorf("the join token is still in %s", out)
	}
}

// keyIsThere asks NSS's own tool for the key and the certificate that belong together.
func (r *rollout) keyIsThere(t *testing.T) {
	t.Helper()
	list := output(t, "certutil", "-L", "-d", "sql:"+r.path("/home/alice/.pki/nssdb"))
	if !strings.Contains(list, "u,u,u") {
		t.Errorf("no certificate with its key in alice's NSS database:\n%s", list)
	}
}

func (r *rollout) killed(t *testing.T) {
	for _, unit := range []string{agentUnit, helperUnit} {
		before := r.property(t, unit, "MainPID")
		begin := time.Now()
		r.run(t, "kill", "-KILL", before)
		r.eventually(t, 20*time.Second, "restart of "+unit, func() error {
			if pid := r.property(t, unit, "MainPID"); pid == before || pid == "0" || r.property(t, unit, "NRestarts") == "0" {
				return errors.New("not started again")
			}
			return nil
		})
		r.same(t, "after kill -9 of "+unit)
		t.Logf("%s: killed, and all well again after %s", unit, time.Since(begin).Round(100*time.Millisecond))
	}
}

// same waits until all is as it was: joined under the same name, the helper
// attached, the same certificate, nothing new asked for.
func (r *rollout) same(t *testing.T, when string) {
	t.Helper()
	was := r.report.Credentials[0]
	now := r.await(t, 60*time.Second, when, func(s status.Report) bool {
		return usable(s) && s.Device.Joined && len(s.Users) == 1
	})
	if c := now.Credentials[0]; c.Serial != was.Serial || c.ID != was.ID || now.Device.ID != r.report.Device.ID {
		t.Errorf("%s: %s of device %s, before %s of device %s", when, c.Serial, now.Device.ID, was.Serial, r.report.Device.ID)
	}
	r.keyIsThere(t)
}

func (r *rollout) desktop(t *testing.T) {
	before := r.property(t, helperUnit, "MainPID")
	if out, err := r.as(t, "env", "DISPLAY=:7", "/usr/libexec/smime-agent/desktop-session"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pid := r.property(t, helperUnit, "MainPID")
	if pid == before || !strings.Contains(r.run(t, "cat", "/proc/"+pid+"/environ"), "DISPLAY=:7") {
		t.Errorf("the helper (%s, before %s) does not know the display", pid, before)
	}
	r.same(t, "after the desktop came up")
}

func (r *rollout) unprivileged(t *testing.T) {
	for _, path := range []string{"/var/lib/smime-agent", "/var/log/smime-agent"} {
		if out, err := r.as(t, "ls", path); err == nil {
			t.Errorf("alice reads %s: %s", path, out)
		}
	}
	if out, err := r.as(t, "smime-agent", "status"); err != nil || !strings.Contains(out, "alice@example.com") {
		t.Errorf("alice's status: %v\n%s", err, out)
	}
	if out, err := r.as(t, "rm", "/run/smime-agent/agent.sock"); err == nil {
		t.Errorf("alice removed the socket: %s", out)
	}
}

// upgraded goes up to a package of the same programs under a higher version, and
// down again.
func (r *rollout) upgraded(t *testing.T) {
	newer := r.repacked(t, built(t, ".deb"), "999.0.0")
	for _, step := range []struct{ version, path string }{{"999.0.0", newer}, {r.version(t, "smime-agent"), inMachine}} {
		service, helper := r.property(t, agentUnit, "MainPID"), r.property(t, helperUnit, "MainPID")
		r.apt(t, "install", "--allow-downgrades", step.path)
		if got := r.version(t, "smime-agent"); got != step.version {
			t.Errorf("installed: %s, want %s", got, step.version)
		}
		if r.property(t, agentUnit, "MainPID") == service || r.property(t, helperUnit, "MainPID") == helper {
			t.Error("an old program still runs")
		}
		r.same(t, "after a change to version "+step.version)
	}
}

func (m *machine) version(t *testing.T, name string) string {
	t.Helper()
	return m.run(t, "dpkg-query", "--show", "--showformat=${Version}", name)
}

// repacked is a package once more, with another version.
func (m *machine) repacked(t *testing.T, deb, version string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "package")
	output(t, "dpkg-deb", "--raw-extract", deb, dir)
	control := filepath.Join(dir, "DEBIAN", "control")
	text := regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAllString(read(control), "Version: "+version)
	must(t, os.WriteFile(control, []byte(text), 0o644))
	const path = "/opt/rollout/newer.deb"
	output(t, "dpkg-deb", "--build", "-Znone", dir, m.path(path))
	return path
}

func (r *rollout) switchedOff(t *testing.T) {
	r.run(t, "systemctl", "disable", "--now", agentUnit)
	r.apt(t, "install", "--reinstall", inMachine)
	if got := r.property(t, agentUnit, "ActiveState"); got != "inactive" {
		t.Errorf("an upgrade made the service %s that the administrator had switched off", got)
	}
	r.run(t, "systemctl", "enable", "--now", agentUnit)
	r.same(t, "after switching it on again")
}

func (r *rollout) removed(t *testing.T) {
	r.apt(t, "remove", "smime-agent")
	r.nothingRuns(t)
	r.keyIsThere(t)
	r.apt(t, "install", inMachine)
	r.same(t, "after removing and installing again")
}

func (r *rollout) nothingRuns(t *testing.T) {
	t.Helper()
	if out, err := r.try(t.Context(), "pgrep", "--list-full", "^smime-"); err == nil {
		t.Errorf("it still runs: %s", out)
	}
}

// leftOver is what docs/deploy.md says remains after purging: what others put
// into the policy folder, and what is the users' own.
var leftOver = regexp.MustCompile(`^/home/alice/(\.pki|\.local(/state(/smime-agent)?)?)$|^/home/alice/\.(pki|local/state/smime-agent)/|` +
	`^/etc/smime-agent/(policy\.d(/50-company\.yaml)?|server-ca\.pem)$`)

func (r *rollout) purged(t *testing.T) {
	r.apt(t, "purge", "smime-agent")
	r.allGone(t)
}

// asRPM goes the same way by rpm itself, on Debian and so without what the
// package depends on: it is the scripts that are tried, with rpm's arguments.
func (r *rollout) asRPM(t *testing.T) {
	// rpm's own database is no file of ours.
	rpm := func(args ...string) {
		r.run(t, append([]string{"rpm", "--dbpath", "/var/cache/rpm", "--nodeps"}, args...)...)
	}
	must(t, os.Mkdir(r.path("/var/lib/smime-agent"), 0o700))
	must(t, os.WriteFile(r.path("/var/lib/smime-agent/join-token"), []byte(r.token+"\n"), 0o600))
	must(t, os.WriteFile(r.path("/etc/smime-agent/config.yaml"), []byte("proxy: none\nsync_floor: 1s\n"), 0o644))
	rpm("--install", rpmInMachine)
	r.report = r.await(t, 60*time.Second, "a proved certificate after rpm --install", func(s status.Report) bool {
		return s.Device.Joined && len(s.Users) == 1 && usable(s)
	})
	before := r.property(t, agentUnit, "MainPID")
	rpm("--upgrade", "--force", rpmInMachine)
	if r.property(t, agentUnit, "MainPID") == before || r.property(t, agentUnit, "UnitFileState") != "enabled" {
		t.Error("after an upgrade the old program still runs, or the service is not enabled")
	}
	r.same(t, "after rpm --upgrade")
	rpm("--erase", "smime-agent")
	r.allGone(t)
}

// allGone compares the disk with what was on it before.
func (r *rollout) allGone(t *testing.T) {
	t.Helper()
	r.nothingRuns(t)
	r.keyIsThere(t)
	var wrong []string
	for path := range r.files(t) {
		if !r.before[path] && !leftOver.MatchString(path) {
			wrong = append(wrong, path)
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		t.Errorf("left after purging:\n%s", strings.Join(wrong, "\n"))
	}
	for path, stays := range map[string]bool{
		"/etc/smime-agent/policy.d/50-company.yaml": true, "/etc/smime-agent/server-ca.pem": true,
		"/etc/smime-agent/config.yaml": false, "/var/lib/smime-agent": false, "/var/log/smime-agent": false,
	} {
		if _, err := os.Lstat(r.path(path)); stays != (err == nil) {
			t.Errorf("%s: there should be %v: %v", path, stays, err)
		}
	}
	if out := r.run(t, "systemctl", "list-units", "--all", "--no-legend", "--plain", "smime*"); strings.Contains(out, "failed") {
		t.Errorf("systemd still complains: %s", out)
	}
}

// files lists the machine's disk, without what apt and systemd keep about
// themselves.
func (r *rollout) files(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	out := output(t, "find", r.root, "-xdev", "(", "-path", r.path("/var/cache"), "-o", "-path", r.path("/var/lib/dpkg"), "-o",
		"-path", r.path("/var/lib/apt"), "-o", "-path", r.path("/var/lib/systemd"), "-o", "-path", r.path("/var/log/journal"), "-o",
		"-path", r.path("/var/log/apt"), "-o", "-path", r.path("/var/log/dpkg.log"), "-o", "-path", r.path("/tmp"), "-o", "-path", r.path("/var/tmp"), "-o", "-path", r.path("/opt/rollout"), "-o", "-path", r.path("/run"), ")", "-prune", "-o", "-print")
	for line := range strings.Lines(out) {
		all[strings.TrimPrefix(strings.TrimSpace(line), r.root)] = true
	}
	return all
}
