//go:build linux && systemd

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
	"smime-agent/server-stub/esttest"
	"smime-agent/server-stub/mailtest"
)

const (
	// secretsFolder is where the administrator keeps what the unit loads.
	secretsFolder = "/etc/smime-secrets"
	// credentialFolder is where systemd puts them for the server.
	credentialFolder = "/run/credentials/" + centralUnit
	mailPassword     = "the mail server wants this"
	storePassword    = "the database wants this"
	softhsm          = "/usr/lib/softhsm/libsofthsm2.so"
	pinOfToken       = "471147"
)

// office is a machine that is all of a small company: central management with its
// secrets as credentials of systemd, a database, an employee at a desktop. The
// servers that central management signs in to are beside it.
type office struct {
	*central
	directory *slapd
	post      *mailtest.Server
	est       *esttest.Server
	desk      *screen
	report    status.Report
	// top is the test of all steps: what one of them boots is for the next ones too.
	top *testing.T
}

// TestSystemd is run by hand (make e2e-systemd): it lays out more of Debian than
// [TestPackage] and wants half of a gigabyte from its mirror.
func TestSystemd(t *testing.T) {
	platformtest.Need(t, "root", os.Geteuid() == 0)
	platformtest.NeedPrograms(t, "mmdebstrap", "systemd-nspawn", "nsenter", "apt-get", "Xvfb", "xdotool", "slapd", "certutil")
	m := newMachine(t, "postgresql", "zenity", "softhsm2", "libnss3-tools", "iproute2", "man-db")
	o := &office{central: &central{machine: m}, top: t}
	o.surround(t)
	binds := map[string]string{builtOf(t, centralName, ".deb"): centralInMachine, built(t, ".deb"): inMachine}
	output(t, "chroot", m.root, "useradd", "--create-home", "--uid", "1000", "alice")
	must(t, os.MkdirAll(m.path("/opt/rollout"), 0o755))
	m.boot(t, binds)
	t.Log(m.run(t, "sh", "-c", "uname -sr; systemctl --version | head -1; stat --file-system --format='cgroups: %T' /sys/fs/cgroup; "+
		"dpkg-query --show postgresql-15 zenity softhsm2 libnss3"))
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"units as systemd reads them", o.verified},
		{"central management with credentials", o.founded},
		{"what is served", o.sockets},
		{"agent and desktop", o.moveIn},
		{"from prompt to proof", o.enrolled},
		{"a key in a PKCS #11 token", o.token},
		{"kill -9", o.killedBoth},
		{"PostgreSQL over its socket", o.peered},
		{"journal", o.journaled},
		{"log out and in", o.loggedOut},
		{"reboot while a question is open", o.rebootedAsked},
		{"reboot while an administrator is waited for", o.rebootedWaiting},
		{"stop", o.stoppedBoth},
	} {
		begin := time.Now()
		if !t.Run(step.name, step.do) {
			t.Fatalf("the steps after %q stand on it", step.name)
		}
		t.Logf("%-28s %s", step.name, time.Since(begin).Round(100*time.Millisecond))
	}
}

// surround starts what central management signs in to.
func (o *office) surround(t *testing.T) {
	o.directory = startSlapd(t)
	o.directory.person("alice", alice)
	var err error
	o.post, err = mailtest.Start(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = o.post.Close() })
	o.post.Demand("central", mailPassword)
	o.est, err = esttest.Start()
	must(t, err)
	t.Cleanup(o.est.Close)
	o.est.Break("for both")
	dir := t.TempDir()
	o.desk = (&world{t: t, World: &e2e.World{Dir: dir}}).screen()
}

// verified: systemd finds nothing to say about the units, of the system and of users.
func (o *office) verified(t *testing.T) {
	o.apt(t, "install", centralInMachine)
	o.apt(t, "install", inMachine)
	for _, args := range [][]string{
		{"systemd-analyze", "verify", "--recursive-errors=no", agentUnit, centralUnit},
		{"env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "--user", "verify", "--recursive-errors=no", "/usr/lib/systemd/user/" + helperUnit},
	} {
		if out, err := o.try(t.Context(), args...); err != nil || out != "" {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for unit, worst := range map[string]string{agentUnit: worstExposure, centralUnit: worstCentralExposure} {
		out := o.run(t, "systemd-analyze", "security", "--no-pager", "--threshold="+worst, unit)
		lines := strings.Split(out, "\n")
		t.Log(lines[len(lines)-1])
	}
}

// database makes a database with a password in the machine's own PostgreSQL, and
// gives its name for central management.
func (o *office) database(t *testing.T, port string) string {
	o.run(t, "sh", "-e", "-c", "sed -i 's/^port = .*/port = "+port+"/' /etc/postgresql/*/main/postgresql.conf; systemctl restart postgresql")
	o.eventually(t, 30*time.Second, "PostgreSQL", func() error {
		out, err := o.try(t.Context(), "runuser", "-u", "postgres", "--", "pg_isready", "--port", port)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	// By a file that is removed: the journal keeps command lines.
	script := o.path("/var/lib/postgresql/role.sql")
	must(t, os.WriteFile(script, []byte("create role smime login password '"+storePassword+"';\ncreate database smime owner smime;\n"), 0o644))
	o.run(t, "runuser", "-u", "postgres", "--", "psql", "--port", port, "--quiet", "--file", "/var/lib/postgresql/role.sql")
	must(t, os.Remove(script))
	return "host=127.0.0.1 port=" + port + " dbname=smime user=smime"
}

// founded founds central management over PostgreSQL; each secret comes from a
// credential, and each that is missing is told apart.
func (o *office) founded(t *testing.T) {
	ports, err := e2e.FreePorts("127.0.0.1", 4)
	must(t, err)
	o.addr, o.figures = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[2]
	o.asServer(t, "init", "--organization", "Example GmbH", "--country", "DE", "--organization-identifier", "NTRDE-DER3306.HRB12345",
		"--host", "127.0.0.1", "--listen", o.addr, "--web", "127.0.0.1:"+ports[1],
		"--postgres", o.database(t, ports[3]), "--postgres-password-file", credentialFolder+"/store.password")
	o.configure(t)
	o.refuses(t, "no credential is loaded", "78", credentialFolder+"/mail.password", "LoadCredential=")
	o.credentials(t)
	o.run(t, "mv", secretsFolder+"/mail.password", secretsFolder+"/gone")
	o.refuses(t, "a credential's file is gone", "243", "status=243")
	o.run(t, "mv", secretsFolder+"/gone", secretsFolder+"/mail.password")
	o.run(t, "systemctl", "enable", "--now", centralUnit)
	o.answers(t)
	t.Log(o.run(t, "sh", "-c", "findmnt --noheadings --output FSTYPE,OPTIONS "+credentialFolder+"; stat --format='%a %U:%G %n' "+credentialFolder+" "+credentialFolder+"/*"))
	for _, secret := range []string{storePassword, mailPassword, ldapPass, esttest.Password} {
		if out, err := o.try(t.Context(), "sh", "-c", "tr '\\0' '\\n' < /proc/$(systemctl show --value --property MainPID "+centralUnit+")/environ | grep -F '"+secret+"'"); err == nil {
			t.Errorf("a secret is in the server's environment: %s", out)
		}
	}
}

// refuses: the unit fails with this code and these words, and what is lasting is not tried again.
func (o *office) refuses(t *testing.T, when, code string, words ...string) {
	t.Helper()
	since := o.run(t, "date", "+%F %T")
	if out, err := o.try(t.Context(), "systemctl", "start", centralUnit); err == nil {
		t.Errorf("%s: the server starts: %s", when, out)
	}
	if got := o.property(t, centralUnit, "ExecMainStatus"); got != code {
		t.Errorf("%s: exit code %s, want %s", when, got, code)
	}
	said := o.run(t, "journalctl", "--no-pager", "--output=cat", "--since", since, "--unit="+centralUnit)
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("%s: the journal lacks %q:\n%s", when, word, said)
		}
	}
	t.Logf("%s:\n%s", when, said)
	o.run(t, "systemctl", "stop", centralUnit)
	_, _ = o.try(t.Context(), "systemctl", "reset-failed", centralUnit) // where it has failed for good
}

// configure names all that central management signs in to.
func (o *office) configure(t *testing.T) {
	path := o.path(centralHome + "/server.yaml")
	text := read(path)
	for section, lines := range map[string][]string{
		"est": {"url: " + o.est.URL, "anchors: est-anchors.pem", "identity: " + credentialFolder + "/est.identity",
			"user: " + esttest.User, "password_file: " + credentialFolder + "/est.password", "ca_file: est-tls.pem"},
		"directory": {"url: " + o.directory.url, "security: starttls", fmt.Sprintf("bind_dn: %q", ldapBind),
			"password_file: " + credentialFolder + "/directory.password", fmt.Sprintf("base: %q", ldapBase), "ca_file: ldap.pem"},
		"mail": {fmt.Sprintf("server: %q", o.post.Addr), "security: none", "from: pki@example.com", "user: central",
			"password_file: " + credentialFolder + "/mail.password"},
	} {
		before, rest, ok := strings.Cut(text, "\n"+section+":\n")
		if !ok {
			t.Fatalf("server.yaml has no %s:\n%s", section, text)
		}
		for strings.HasPrefix(rest, "  ") {
			_, rest, _ = strings.Cut(rest, "\n")
		}
		text = before + "\n" + section + ":\n  " + strings.Join(lines, "\n  ") + "\n" + rest
	}
	text = strings.Replace(text, `metrics: ""`, fmt.Sprintf("metrics: %q", o.figures), 1)
	text = strings.Replace(text, "pending_interval: 1m", "pending_interval: 2s", 1)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	for name, content := range map[string][]byte{
		"est-anchors.pem": esttest.PEM(o.est.Root.Cert), "est-tls.pem": esttest.PEM(o.est.TLS), "ldap.pem": []byte(read(filepath.Join(o.directory.dir, "server.pem"))),
		"people.csv": []byte("account,mailbox,given_name,surname,display_name,department\nalice,alice@example.com,Alice,Example,Alice Example,Sales\n"),
	} {
		must(t, os.WriteFile(o.path(centralHome+"/"+name), content, 0o600))
	}
	o.rules(t, "consent: ask", "mailbox_check: mail", "stores: [auto]")
}

// rules writes the policy, and puts it in force where the server runs.
func (o *office) rules(t *testing.T, lines ...string) {
	t.Helper()
	text := "organization: {name: Example GmbH, country: DE, identifier: NTRDE-DER3306.HRB12345}\nprofiles:\n  employee-dual: {keys: [rsa-2048], ca: est}\n" +
		"rules:\n  - departments: [Sales]\n    profiles: [employee-dual]\n    " + strings.Join(lines, "\n    ") + "\n"
	must(t, os.WriteFile(o.path(centralHome+"/policy.yaml"), []byte(text), 0o600))
	o.run(t, "sh", "-c", "chown smime-central: "+centralHome+"/*.yaml "+centralHome+"/*.csv "+centralHome+"/*.pem")
	if o.property(t, centralUnit, "ActiveState") == "active" {
		o.asServer(t, "policy", "apply")
	}
}

// credentials writes the secrets as root's own files, and the drop-in of the
// documentation, which loads them.
func (o *office) credentials(t *testing.T) {
	identity, err := o.est.IdentityPEM()
	must(t, err)
	must(t, os.MkdirAll(o.path(secretsFolder), 0o700))
	dropIn := []string{"[Service]"}
	for _, c := range []struct{ name, text string }{
		{"store.password", storePassword + "\n"}, {"mail.password", mailPassword + "\n"}, {"directory.password", ldapPass + "\n"},
		{"est.password", esttest.Password + "\n"}, {"est.identity", string(identity)},
	} {
		must(t, os.WriteFile(o.path(secretsFolder+"/"+c.name), []byte(c.text), 0o600))
		dropIn = append(dropIn, "LoadCredential="+c.name+":"+secretsFolder+"/"+c.name)
	}
	folder := o.path("/etc/systemd/system/" + centralUnit + ".d")
	must(t, os.MkdirAll(folder, 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "secrets.conf"), []byte(strings.Join(dropIn, "\n")+"\n"), 0o644))
	o.run(t, "systemctl", "daemon-reload")
}

// sockets: the sandbox takes nothing from what is served: as many callers may wait
// to be let in as the kernel allows, and the figures are all there.
func (o *office) sockets(t *testing.T) {
	o.hardening(t)
	_, port, _ := strings.Cut(o.addr, ":")
	allowed := o.run(t, "cat", "/proc/sys/net/core/somaxconn")
	if got := o.run(t, "sh", "-c", "ss --listening --tcp --numeric --no-header 'sport = :"+port+"' | awk '{print $3}'"); got != allowed {
		t.Errorf("%s callers may wait, the kernel allows %s", got, allowed)
	}
	resp, err := http.Get("http://" + o.figures + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	figures := string(body)
	for _, want := range []string{"process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"} {
		if !strings.Contains(figures, "\n"+want+" ") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// states gives a report's credentials in these states.
func states(r status.Report, want ...enroll.State) (found []status.Credential) {
	for _, c := range r.Credentials {
		if slices.Contains(want, c.State) {
			found = append(found, c)
		}
	}
	return found
}

// dead says that a process is not there any more.
func (m *machine) dead(t *testing.T, pid string) error {
	if _, err := m.try(t.Context(), "kill", "-0", pid); err == nil {
		return errors.New("process " + pid + " lives")
	}
	return nil
}
