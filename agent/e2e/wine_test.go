//go:build linux

package e2e_test

import (
	"crypto/sha1" //nolint:gosec // Windows names certificates by it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// winePatience bounds every wait: Wine is slower than the rest.
const winePatience = 3 * patience

// windowsSession is a company whose only machine is a Windows under Wine, beside
// central management that runs on this side.
type windowsSession struct {
	*prefix
	company *world
	// outlookBefore is what the registry had of Outlook before the agent came.
	outlookBefore string
}

// TestWine takes the built programs through what they do on a machine with
// Windows, as far as Wine goes: it has one user, who is no LocalSystem.
func TestWine(t *testing.T) {
	onlyFull(t, "Wine takes two minutes")
	p := newPrefix(t)
	account := strings.TrimSpace(p.run("wineprobe.exe", "whoami"))
	if !strings.Contains(account, `\`) {
		t.Fatalf("the account is %q", account)
	}
	s := &windowsSession{prefix: p, company: company(t, func(w *e2e.World) {
		w.Consent, w.Profile, w.Keys, w.Stores = "ask", "employee-dual", []string{"rsa-2048"}, []string{"windows"}
		w.Employees[0].Account = account
		w.Rule = []string{"mail: {sign: always, encrypt: user-decides}"}
	})}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the service joins", s.testJoin},
		{"the root is trusted", s.testTrusted},
		{"an Outlook is there", s.testPlanted},
		{"the person is asked", s.testAsked},
		{"Outlook is set up and put back", s.testOutlook},
		{"a second helper leaves", s.testSecondHelper},
		{"renewal keeps the old one", s.testRenewal},
		{"the service is killed", s.testKilled},
		{"the helper is killed", s.testHelperCrashes},
		{"memory", s.testMemory},
		{"random kills", s.testRandomKills},
		{"the name of the pipe is taken", s.testSquatted},
		{"the service goes", s.testUninstall},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			outer := s.t
			s.t, s.company.t = t, t
			defer func() { s.t, s.company.t = outer, outer }()
			step.run(t)
		}) {
			t.Fatalf("the service's log:\n%s\nif it hung: %s\nthe helper's:\n%s", s.logs(), s.hang(), s.helperLogs())
		}
	}
}

func (s *windowsSession) logs() string {
	raw, err := os.ReadFile(s.path(driveData + "/logs/agent.log"))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// hang is what the service's goroutines did when it gave itself up.
func (s *windowsSession) hang() string {
	raw, err := os.ReadFile(s.path(driveData + "/logs/hang.txt"))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// helperLogs are what the helper and the one that watches over it wrote last.
func (s *windowsSession) helperLogs() string {
	var all strings.Builder
	for _, name := range []string{"helper.log", "helper-crash.log"} {
		found, _ := filepath.Glob(s.path("drive_c/users/*/AppData/Local/smime-agent/" + name))
		for _, file := range found {
			raw, err := os.ReadFile(file)
			fmt.Fprintf(&all, "%s: %v\n%s\n", name, err, raw[max(0, len(raw)-64<<10):])
		}
	}
	return all.String()
}

// testJoin installs the service and gives it settings from three places: managed
// policy and the installer's values in the registry, a file for the token.
func (s *windowsSession) testJoin(t *testing.T) {
	w := s.company
	ctx := w.within()
	w.must(w.Founded(ctx))
	w.must(w.StartServer(ctx))
	w.must(w.WriteSettings(ctx)) // for the token that it makes
	s.must(os.MkdirAll(s.path(driveData), 0o700))
	for from, to := range map[string]string{"central/transport/ca.crt": "ca.crt", "agent/token": "token"} {
		raw, err := os.ReadFile(filepath.Join(w.Dir, from))
		s.must(err)
		s.must(os.WriteFile(s.path(filepath.Join(driveData, to)), raw, 0o600))
	}
	const policy, installed = `HKLM\Software\Policies\smime-agent`, `HKLM\Software\smime-agent`
	for _, v := range [][4]string{
		{policy, "server", "REG_SZ", w.ServerAddress()},
		{policy, "show_notices", "REG_DWORD", "1"},
		{installed, "server", "REG_SZ", "overruled.example:1"},
		{installed, "server_ca", "REG_SZ", windowsData + "ca.crt"},
		{installed, "join_token_file", "REG_SZ", windowsData + "token"},
		{installed, "proxy", "REG_SZ", "none"},
		{installed, "sync_floor", "REG_SZ", "1s"},
		{installed, "retry_cap", "REG_SZ", "1s"},
		{installed, "self_check", "REG_SZ", "45s"}, // a hang explains itself before patience ends
	} {
		s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", v[0], "/v", v[1], "/t", v[2], "/d", v[3], "/f"))
	}
	s.run("smime-agent.exe", "service", "install")
	if said := s.run("smime-agent.exe", "service", "status"); strings.TrimSpace(said) != "stopped" {
		t.Errorf("installed, it is %q", said)
	}
	s.run("smime-agent.exe", "service", "start")
	s.awaitStatus("joined", func(r status.Report) bool { return r.Device.Joined })
	if said := s.run("smime-agent.exe", "service", "status"); strings.TrimSpace(said) != "running" {
		t.Errorf("started, it is %q", said)
	}
	if _, err := os.Stat(s.path(driveData + "/token")); err == nil {
		t.Error("the join token was not forgotten")
	}
	// Neither file of the service is for others, which Wine shows as Unix modes.
	for _, name := range []string{"", "/state", "/logs", "/state/secrets"} {
		info, err := os.Stat(s.path(driveData + name))
		s.must(err)
		if info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s%s has mode %v", driveData, name, info.Mode())
		}
	}
	s.secretsAreSealed()
}

func (s *windowsSession) secretsAreSealed() {
	s.t.Helper()
	found, err := filepath.Glob(s.path(driveData + "/state/secrets/*"))
	if err != nil || len(found) == 0 {
		s.t.Fatalf("no secrets: %v", err)
	}
	for _, file := range found {
		raw, err := os.ReadFile(file)
		s.must(err)
		for _, plain := range []string{"PRIVATE KEY", "BEGIN"} {
			if strings.Contains(string(raw), plain) {
				s.t.Errorf("%s can be read", filepath.Base(file))
			}
		}
	}
}

// testTrusted: policy says that the company's root is to be trusted, and the
// service puts it where the whole machine sees it. The registry's own tool looks;
// the key's name there is the certificate's SHA-1.
func (s *windowsSession) testTrusted(t *testing.T) {
	sum := sha1.Sum(s.company.root().Raw) //nolint:gosec // a name
	key := `HKLM\Software\Microsoft\SystemCertificates\Root\Certificates\` + strings.ToUpper(hex.EncodeToString(sum[:]))
	for deadline := time.Now().Add(winePatience); ; time.Sleep(200 * time.Millisecond) {
		said, err := s.output(time.Minute, "reg", s.wine, "reg", "query", key)
		told := strings.Contains(s.logs(), "anchor trusted for e-mail")
		if err == nil && strings.Contains(said, "Blob") && told {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the root is not there: %v, %s; the service says so: %v", err, said, told)
		}
	}
	if r := s.report(); slices.ContainsFunc(r.Conditions, func(c status.Condition) bool { return c.Code == status.AnchorsUntrusted }) {
		t.Errorf("%+v", r.Conditions)
	}
}

// testAsked starts the helper and answers its dialog by the keyboard.
func (s *windowsSession) testAsked(t *testing.T) {
	s.start("smime-helper.exe", "--supervise")
	s.awaitStatus("a question", func(r status.Report) bool {
		return len(r.Users) == 1 && strings.HasPrefix(r.Users[0].ID, "S-1-5-") && has(alice, enroll.Wanted)(r)
	})
	s.answer("windows-question.png")
	pressed := time.Now()
	r := s.awaitStatus("an active credential", has(alice, enroll.Active))
	t.Logf("from the answer to the proof under Wine: %v, of it%s", time.Since(pressed).Round(time.Millisecond), s.phases())
	c, _ := credential(r, alice, enroll.Active)
	if !c.Proof.OK() || c.Store != "windows" || c.Protection != "non-exportable" {
		t.Errorf("%+v", c)
	}
	t.Logf("status over the pipe:\n%s", s.run("smime-agent.exe", "status"))
}

// phases are how long the helper's first tasks took, by its own log.
func (s *windowsSession) phases() string {
	var all strings.Builder
	found, _ := filepath.Glob(s.path("drive_c/users/*/AppData/Local/smime-agent/helper.log"))
	for _, file := range found {
		raw, err := os.ReadFile(file)
		s.must(err)
		for line := range strings.Lines(string(raw)) {
			var l struct{ Msg, Task, Took string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "task done" && l.Task != "ask" {
				fmt.Fprintf(&all, " %s %s", l.Task, l.Took)
			}
		}
	}
	return all.String()
}

// answer waits for the helper's dialog, keeps a picture of it, and agrees.
func (s *windowsSession) answer(picture string) {
	s.t.Helper()
	var window string
	for deadline := time.Now().Add(winePatience); window == ""; time.Sleep(200 * time.Millisecond) {
		if found, err := s.output(10*time.Second, "search", "xdotool", "search", "--onlyvisible", "--class", "smime-helper"); err == nil {
			window = strings.TrimSpace(strings.Split(strings.TrimSpace(found), "\n")[0])
		}
		if time.Now().After(deadline) {
			s.t.Fatal("no dialog came")
		}
	}
	time.Sleep(time.Second) // until it is drawn
	file := filepath.Join(s.artifacts, picture)
	s.must(s.program(30*time.Second, "import", "import", "-window", "root", file))
	info, err := os.Stat(file)
	s.must(err)
	if info.Size() < 2000 {
		s.t.Errorf("%s has %d bytes: an empty screen", file, info.Size())
	}
	s.t.Logf("the dialog: %s", file)
	s.must(s.program(30*time.Second, "key", "xdotool", "windowfocus", window, "sleep", "0.3",
		"key", "shift+Tab", "sleep", "0.3", "key", "Return")) // a stray Enter would say "later"
}

// testSecondHelper: one per logon session is enough.
func (s *windowsSession) testSecondHelper(t *testing.T) {
	started := time.Now()
	s.run("smime-helper.exe")
	t.Logf("it left after %v", time.Since(started).Round(time.Millisecond))
	if r := s.report(); len(r.Users) != 1 {
		t.Errorf("users: %+v", r.Users)
	}
}

func (s *windowsSession) testRenewal(t *testing.T) {
	old, _ := credential(s.report(), alice, enroll.Active)
	s.run("smime-agent.exe", "renew", alice)
	r := s.awaitStatus("a new credential", func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Active)
		return ok && c.ID != old.ID
	})
	if !slices.ContainsFunc(r.Credentials, func(c status.Credential) bool { return c.ID == old.ID && c.State == enroll.Kept }) {
		t.Errorf("the old one is not kept: %+v", r.Credentials)
	}
}

// testKilled ends the service without warning. Wine's service manager goes on
// calling it "running" and starts nothing again, so the test does.
func (s *windowsSession) testKilled(t *testing.T) {
	before, _ := credential(s.report(), alice, enroll.Active)
	for range 3 {
		s.must(s.program(time.Minute, "kill", s.wine, "taskkill", "/F", "/IM", "smime-agent.exe"))
		for deadline := time.Now().Add(winePatience); len(s.processes("smime-agent.exe")) > 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the service outlived its end")
			}
		}
		s.run("smime-agent.exe", "service", "start")
		r := s.awaitStatus("the helper back", func(r status.Report) bool { return len(r.Users) == 1 && r.Device.Joined })
		if c, ok := credential(r, alice, enroll.Active); !ok || c.ID != before.ID {
			t.Fatalf("after a kill: %+v", r.Credentials)
		}
	}
}

// testHelperCrashes: the helper that watches over it starts another.
func (s *windowsSession) testHelperCrashes(*testing.T) {
	before := s.processes("smime-helper.exe")
	s.run("wineprobe.exe", "crash", "smime-helper.exe")
	s.awaitStatus("another helper", func(r status.Report) bool {
		now := s.processes("smime-helper.exe")
		return len(r.Users) == 1 && len(now) == 2 && !slices.Equal(before, now)
	})
}

func (s *windowsSession) awaitService(want string) {
	s.t.Helper()
	said := ""
	for deadline := time.Now().Add(winePatience); said != want; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the service is %q, not %q", said, want)
		}
		said = strings.TrimSpace(s.run("smime-agent.exe", "service", "status"))
	}
}

// mostResident is what each may hold when it has nothing to do, Wine's own
// memory included.
const mostResident = 100 << 20

func (s *windowsSession) testMemory(t *testing.T) {
	time.Sleep(5 * time.Second)
	for _, exe := range []string{"smime-agent.exe", "smime-helper.exe"} {
		all := s.processes(exe)
		if len(all) == 0 {
			t.Errorf("no process of %s", exe)
		}
		for _, pid := range all {
			n := s.resident(pid)
			t.Logf("%s, idle under Wine: %.1f MB resident", exe, float64(n)/(1<<20))
			if n > mostResident {
				t.Errorf("%s holds %d bytes", exe, n)
			}
		}
	}
}

// testSquatted: somebody was faster with the pipe's name.
func (s *windowsSession) testSquatted(t *testing.T) {
	s.run("smime-agent.exe", "service", "stop")
	s.awaitService("stopped")
	squatter := s.start("wineprobe.exe", "squat", `\\.\pipe\smime-agent`)
	for deadline := time.Now().Add(winePatience); ; time.Sleep(200 * time.Millisecond) {
		said, err := s.try("smime-agent.exe", "status")
		if exitOf(err) == 3 && strings.Contains(err.Error(), "is not the agent's service") {
			t.Logf("the client says: %v", err)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the client talks to an impostor: %q, %v", said, err)
		}
	}
	_, _ = s.try("smime-agent.exe", "service", "start") // the service manager may say that it started
	s.awaitService("stopped")
	if !strings.Contains(s.logs(), "holds the pipe") {
		t.Error("the service does not say who holds the pipe")
	}
	_ = squatter.Process.Kill()
	_ = s.program(time.Minute, "kill", s.wine, "taskkill", "/F", "/IM", "wineprobe.exe")
	s.start("wineprobe.exe")
	s.run("smime-agent.exe", "service", "start")
	s.awaitStatus("service and helper back", func(r status.Report) bool { return r.Device.Joined && len(r.Users) == 1 })
}

func (s *windowsSession) testUninstall(t *testing.T) {
	s.run("smime-agent.exe", "service", "stop")
	s.awaitService("stopped")
	s.run("smime-agent.exe", "service", "uninstall")
	s.awaitService("not installed")
	if _, err := s.try("smime-agent.exe", "status"); exitOf(err) != 3 {
		t.Errorf("status of nothing: %v", err)
	}
}

// report asks for the status.
func (s *windowsSession) report() (r status.Report) {
	s.t.Helper()
	said, err := s.try("smime-agent.exe", "status", "--json")
	if exitOf(err) < 0 || exitOf(err) > 2 {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(said), &r); err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
	return r
}

func (s *windowsSession) awaitStatus(what string, want func(status.Report) bool) status.Report {
	s.t.Helper()
	var last string
	var failed error
	for deadline := time.Now().Add(winePatience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		said, err := s.try("smime-agent.exe", "status", "--json")
		var r status.Report
		if code := exitOf(err); code >= 0 && code <= 2 && json.Unmarshal([]byte(said), &r) == nil && want(r) {
			return r
		}
		last, failed = said, err
	}
	s.t.Fatalf("%s did not come; services %v, helpers %v; last status: %v\n%s",
		what, s.processes("smime-agent.exe"), s.processes("smime-helper.exe"), failed, last)
	return status.Report{}
}
