//go:build linux

package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

// Versions of the two packages, and a probe that lies where no package looks.
const (
	olderMSI, newerMSI = "1.0.0", "1.0.1"
	probeInDrive       = "drive_c/probe/wineprobe.exe"
	probeInWindows     = `C:\probe\wineprobe.exe`
	unixOf1603         = 1603 % 256 // ERROR_INSTALL_FAILURE as this side sees it
	unixOf3010         = 3010 % 256 // ERROR_SUCCESS_REBOOT_REQUIRED
)

// packaged is a machine that gets the agent from its package and nothing else.
type packaged struct {
	*windowsSession
	packages map[string]string // by version
	token    string
	// before is what was true before the last step.
	before status.Report
	keys   string
}

// TestWineMSI takes a machine through the package's life: refused where it does
// not fit, installed silently, upgraded while an enrollment waits, downgraded in
// vain, repaired, removed, installed again, removed with all that it knew.
func TestWineMSI(t *testing.T) {
	onlyFull(t, "Wine and two packages take minutes")
	platformtest.NeedPrograms(t, "wixl", "msibuild", "msiinfo", "faketime")
	p := bootPrefix(t)
	s := &packaged{windowsSession: &windowsSession{prefix: p}, packages: map[string]string{}}
	for _, version := range []string{olderMSI, newerMSI} {
		s.packages[version] = buildMSI(t, filepath.Join(p.dir, version), version, nil)
	}
	s.keepAlive()
	account := strings.TrimSpace(s.probe("whoami"))
	s.company = company(t, func(w *e2e.World) {
		w.Consent, w.Profile, w.Keys, w.Stores = "silent", "employee-dual", []string{"rsa-2048"}, []string{"windows"}
		w.Rule = []string{"approval: administrator"}
		w.Employees[0].Account = account
	})
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"refused on Windows 7", s.testTooOld},
		{"msiexec /i", s.testInstalled},
		{"an enrollment waits", s.testWaits},
		{"upgrade in mid-enrollment", s.testUpgraded},
		{"restart", s.testRestarted},
		{"downgrade refused", s.testDowngraded},
		{"repair", s.testRepaired},
		{"every policy of the template", s.testTemplate},
		{"removed and installed again", s.testRemoved},
		{"removed with all it knew", s.testPurged},
		{"the token is nowhere", s.testTokenNowhere},
	} {
		begin := time.Now()
		if !t.Run(step.name, func(t *testing.T) {
			outer := s.t
			s.t, s.company.t = t, t
			defer func() { s.t, s.company.t = outer, outer }()
			step.run(t)
		}) {
			t.Fatalf("the service's log:\n%s", s.logs())
		}
		t.Logf("%-28s %s", step.name, time.Since(begin).Round(100*time.Millisecond))
	}
}

// keepAlive builds the probe and lets one run: without a process Wine ends its
// services.
func (s *packaged) keepAlive() {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(s.path(probeInDrive)), 0o755))
	cmd := exec.CommandContext(s.t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.path(probeInDrive), "./agent/e2e/wineprobe")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	s.launch(probeInWindows)
}

// launch starts a program by its whole path, for longer than the step.
func (s *packaged) launch(path string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(s.wine, append([]string{path}, args...)...)
	cmd.Env = s.env
	s.must(cmd.Start())
	s.whole.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func (s *packaged) probe(args ...string) string {
	s.t.Helper()
	out, err := s.output(time.Minute, "probe", s.wine, append([]string{probeInWindows}, args...)...)
	s.must(err)
	return out
}

// msiexec runs Windows Installer silently, with a log of everything, and says how
// it ended.
func (s *packaged) msiexec(args ...string) int {
	s.t.Helper()
	args = append(append([]string{"msiexec"}, args...), "/qn", "/l*v", `Z:`+strings.ReplaceAll(filepath.Join(s.dir, "msi.log"), "/", `\`))
	_, err := s.output(3*time.Minute, "msiexec", s.wine, args...)
	if err == nil {
		return 0
	}
	return exitOf(err)
}

func (s *packaged) zDrive(version string) string {
	return `Z:` + strings.ReplaceAll(s.packages[version], "/", `\`)
}

// installs must end well.
func (s *packaged) installs(args ...string) {
	s.t.Helper()
	if code := s.msiexec(args...); code != 0 {
		s.t.Fatalf("msiexec %q: exit code %d\n%s", args, code, read(filepath.Join(s.dir, "msi.log")))
	}
}

// value reads a value of the registry; empty if it is not there.
func (s *packaged) value(key, name string) string {
	s.t.Helper()
	out, err := s.output(time.Minute, "reg", s.wine, "reg", "query", key, "/v", name)
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(out, "REG_")
	_, rest, _ = strings.Cut(rest, "    ")
	return strings.TrimSpace(rest)
}

func (s *packaged) absent(keys ...string) {
	s.t.Helper()
	for _, key := range keys {
		if out, err := s.output(time.Minute, "reg", s.wine, "reg", "query", key); err == nil {
			s.t.Errorf("%s is still there:\n%s", key, out)
		}
	}
}

const (
	policyKey    = `HKLM\Software\Policies\smime-agent`
	installedKey = `HKLM\Software\smime-agent`
	handoverKey  = `HKLM\Software\smime-agent-join`
	foldersKey   = `HKLM\Software\smime-agent-folders`
	serviceKey   = `HKLM\System\CurrentControlSet\Services\smime-agent`
	eventsKey    = `HKLM\System\CurrentControlSet\Services\EventLog\Application\smime-agent`
	runKey       = `HKLM\Software\Microsoft\Windows\CurrentVersion\Run`
)

// testTooOld: Wine 8 passes itself off as Windows 7.
func (s *packaged) testTooOld(t *testing.T) {
	s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", `HKCU\Software\Wine`, "/v", "Version", "/d", "win7", "/f"))
	if code := s.msiexec("/i", s.zDrive(olderMSI)); code != unixOf1603 {
		t.Errorf("exit code %d, not that of 1603", code)
	}
	s.absent(installedKey, serviceKey)
	s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", `HKCU\Software\Wine`, "/v", "Version", "/d", "win10", "/f"))
}

// pin is what `server-stub init` prints of the transport CA.
func (s *packaged) pin() string {
	s.t.Helper()
	block, _ := pem.Decode([]byte(read(filepath.Join(s.company.Dir, "central", "transport", "ca.crt"))))
	cert, err := x509.ParseCertificate(block.Bytes)
	s.must(err)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// quicken is a policy that makes the agent quick.
func (s *packaged) quicken() {
	s.t.Helper()
	for name, value := range map[string]string{"proxy": "none", "sync_floor": "1s", "retry_cap": "1s"} {
		s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", policyKey, "/v", name, "/d", value, "/f"))
	}
}

// testInstalled: group policy was there before the package, and sets what no
// property does.
func (s *packaged) testInstalled(t *testing.T) {
	w := s.company
	ctx := w.within()
	w.must(w.Founded(ctx))
	w.must(w.StartServer(ctx))
	w.must(w.WriteSettings(ctx)) // for the token that it makes
	s.token = strings.TrimSpace(read(filepath.Join(w.Dir, "agent", "token")))
	s.quicken()
	s.installs("/i", s.zDrive(olderMSI), "SERVERURL="+w.ServerAddress(), "SERVERPIN="+s.pin(), "JOINTOKEN="+s.token)
	s.awaitService("running")
	s.before = s.awaitStatus("joined", func(r status.Report) bool { return r.Device.Joined })
	if s.before.Version != olderMSI {
		t.Errorf("version %q runs", s.before.Version)
	}
	s.absent(handoverKey)
	for _, v := range [][3]string{
		{installedKey, "server", w.ServerAddress()}, {installedKey, "server_pin", s.pin()},
		{runKey, "smime-helper", `"` + windowsPrograms + `smime-helper.exe" --supervise`},
		{serviceKey, "ImagePath", `"` + windowsPrograms + `smime-agent.exe" service run --managed`},
		{serviceKey, "ObjectName", "LocalSystem"}, {serviceKey, "Start", "0x2"},
		{eventsKey, "EventMessageFile", `%SystemRoot%\System32\EventCreate.exe`},
	} {
		if got := s.value(v[0], v[1]); got != v[2] {
			t.Errorf(`%s\%s is %q, not %q`, v[0], v[1], got, v[2])
		}
	}
	for _, name := range []string{"", "/state", "/logs", "/state/secrets"} { // Wine shows access lists as Unix modes
		info, err := os.Stat(s.path(driveData + name))
		s.must(err)
		if info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s%s has mode %v", driveData, name, info.Mode())
		}
	}
	s.logOfInstaller(t)
}

// logOfInstaller: of all lines only the list of properties may show the token,
// which Windows keeps back there (MsiHiddenProperties) and Wine does not.
func (s *packaged) logOfInstaller(t *testing.T) {
	log := read(filepath.Join(s.dir, "msi.log"))
	for line := range strings.Lines(log) {
		if strings.Contains(line, s.token) && !strings.HasPrefix(line, "Property(S): JOINTOKEN = ") {
			t.Errorf("the installer's log shows the token: %s", line)
		}
	}
	if !strings.Contains(log, "people's keys and certificates stay") {
		t.Error("the installer's log does not say what stays")
	}
}

// logon starts the helper by what stands in the Run key, as Windows does.
func (s *packaged) logon() {
	s.t.Helper()
	command := regexp.MustCompile(`^"([^"]+)" (.*)$`).FindStringSubmatch(s.value(runKey, "smime-helper"))
	if command == nil {
		s.t.Fatal("nothing to start at logon")
	}
	s.launch(command[1], strings.Fields(command[2])...)
}

func waits(r status.Report) bool {
	return len(r.Credentials) == 1 && r.Credentials[0].State == enroll.Submitted
}

func (s *packaged) testWaits(t *testing.T) {
	s.logon()
	s.before = s.awaitStatus("a request that waits for an administrator", waits)
	s.keys = s.probe("keys")
	var keys []struct{ ID string }
	s.must(json.Unmarshal([]byte(s.keys), &keys))
	if len(keys) != 1 || keys[0].ID != string(s.before.Credentials[0].ID) {
		t.Errorf("the keys are %s, the enrollment is %s", s.keys, s.before.Credentials[0].ID)
	}
}

// same waits until the service of this version serves the same device, the same
// enrollment and the same person as before.
func (s *packaged) same(version string, state func(status.Report) bool) {
	s.t.Helper()
	r := s.awaitStatus("all as it was", func(r status.Report) bool {
		return r.Device.Joined && r.Version == version && len(r.Users) == 1 && state(r)
	})
	if r.Device.ID != s.before.Device.ID || r.Credentials[0].ID != s.before.Credentials[0].ID {
		s.t.Errorf("device %s and enrollment %s, before %s and %s", r.Device.ID, r.Credentials[0].ID, s.before.Device.ID, s.before.Credentials[0].ID)
	}
	if got := s.value(installedKey, "server"); got != s.company.ServerAddress() {
		s.t.Errorf("the server is %q now", got)
	}
	if got := s.value(installedKey, "server_pin"); got != s.pin() {
		s.t.Errorf("the pin is %q now", got)
	}
}

func (s *packaged) central(args ...string) string {
	s.t.Helper()
	out, err := s.company.Central(s.company.within(), args...)
	s.must(err)
	return out
}

// testUpgraded: the user is logged in, so his helper's file is in use. It is
// replaced at the next restart, and until then the old helper serves the new
// service.
func (s *packaged) testUpgraded(t *testing.T) {
	if code := s.msiexec("/i", s.zDrive(newerMSI)); code != unixOf3010 {
		t.Fatalf("exit code %d, not that of 3010\n%s", code, read(filepath.Join(s.dir, "msi.log")))
	}
	s.same(newerMSI, waits)
	if got := s.probe("keys"); got != s.keys {
		t.Errorf("the keys were %s and are %s", s.keys, got)
	}
	reference := regexp.MustCompile(`"reference": *"([^"]+)"`).FindStringSubmatch(s.central("requests", "--json"))
	if reference == nil {
		t.Fatalf("nothing waits: %s", s.central("requests"))
	}
	s.central("request", "approve", reference[1])
	s.same(newerMSI, proved)
	c := s.report().Credentials[0]
	if c.Store != "windows" || c.Protection != "non-exportable" {
		t.Errorf("%+v", c)
	}
	s.keys = s.probe("keys")
}

// testRestarted: Wine's boot renames what waits for it, starts the service, and
// then what the Run key says.
func (s *packaged) testRestarted(t *testing.T) {
	s.shutDown()
	s.must(s.program(3*time.Minute, "boot", "wineboot"))
	s.launch(probeInWindows)
	s.same(newerMSI, proved)
	built := read(filepath.Join(filepath.Dir(s.packages[newerMSI]), "windows", "smime-helper.exe"))
	if read(s.path(drivePrograms+"/smime-helper.exe")) != built {
		t.Error("the helper's program is not the newer one")
	}
}

func (s *packaged) shutDown() {
	s.t.Helper()
	s.must(s.program(time.Minute, "end", "/usr/lib/wine/wineserver64", "-k"))
	_ = s.program(time.Minute, "end", "/usr/lib/wine/wineserver64", "-w") // fails if it has gone already
}

func proved(r status.Report) bool {
	return len(r.Credentials) == 1 && r.Credentials[0].State == enroll.Active && r.Credentials[0].Proof.OK()
}

func (s *packaged) testDowngraded(t *testing.T) {
	if code := s.msiexec("/i", s.zDrive(olderMSI)); code != unixOf1603 {
		t.Errorf("exit code %d, not that of 1603", code)
	}
	s.same(newerMSI, proved)
}

func (s *packaged) productCode(version string) string {
	s.t.Helper()
	return tablesOf(s.t, s.packages[version])["Property"]["ProductCode"]["Value"]
}

// testRepaired: Wine's msiexec /f does nothing; this is what it stands for.
func (s *packaged) testRepaired(t *testing.T) {
	s.logoff()
	helper := s.path(drivePrograms + "/smime-helper.exe")
	s.must(os.Remove(helper))
	s.must(s.program(time.Minute, "reg", s.wine, "reg", "delete", runKey, "/v", "smime-helper", "/f"))
	s.installs("/i", s.productCode(newerMSI), "REINSTALL=ALL", "REINSTALLMODE=omus")
	if _, err := os.Stat(helper); err != nil {
		t.Errorf("the helper was not brought back: %v", err)
	}
	s.absent(handoverKey)
	s.logon()
	s.same(newerMSI, proved)
}

// logoff ends what runs in the user's session.
func (s *packaged) logoff() {
	s.t.Helper()
	_ = s.program(time.Minute, "kill", s.wine, "taskkill", "/F", "/IM", "smime-helper.exe")
	for deadline := time.Now().Add(winePatience); len(s.processes("smime-helper.exe")) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the helper outlived its session")
		}
	}
}

// gone says that nothing of the package is left but what the documentation says.
func (s *packaged) gone(t *testing.T) {
	t.Helper()
	s.absent(installedKey, handoverKey, foldersKey, serviceKey, eventsKey)
	if got := s.value(runKey, "smime-helper"); got != "" {
		t.Errorf("at logon Windows still starts %s", got)
	}
	if _, err := os.Stat(s.path(drivePrograms)); err == nil {
		t.Errorf("%s is still there", drivePrograms)
	}
	if got := s.probe("keys"); got != s.keys {
		t.Errorf("the keys were %s and are %s", s.keys, got)
	}
}

func (s *packaged) testRemoved(t *testing.T) {
	s.logoff()
	s.installs("/x", s.productCode(newerMSI))
	s.gone(t)
	if _, err := os.Stat(s.path(driveData + "/state/agent.db")); err != nil {
		t.Errorf("the record went with the package: %v", err)
	}
	// Without a token: it is the same device.
	s.installs("/i", s.zDrive(newerMSI), "SERVERURL="+s.company.ServerAddress(), "SERVERPIN="+s.pin())
	s.logon()
	s.same(newerMSI, proved)
}

func (s *packaged) testPurged(t *testing.T) {
	s.logoff()
	s.installs("/x", s.productCode(newerMSI), "PURGE=1")
	s.gone(t)
	if _, err := os.Stat(s.path(driveData)); err == nil {
		t.Errorf("%s is still there", driveData)
	}
}

// testTokenNowhere looks through the whole disk of the machine, its registry too,
// which Wine writes when it ends.
func (s *packaged) testTokenNowhere(t *testing.T) {
	s.shutDown()
	wide := []byte(strings.Join(strings.Split(s.token, ""), "\x00"))
	files := 0
	err := filepath.WalkDir(s.path(""), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		files++
		if bytes.Contains(raw, []byte(s.token)) || bytes.Contains(raw, wide) {
			t.Errorf("the token is in %s", path)
		}
		return err
	})
	s.must(err)
	t.Logf("%d files looked through", files)
	if raw := read(s.path("system.reg")); !strings.Contains(raw, "Policies\\\\smime-agent") {
		t.Error("the registry was not written yet")
	}
}
