//go:build linux && mozilla

package e2e_test

import (
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
)

// TestWineThunderbird: the built programs of Windows, under Wine, enroll by policy
// alone into a Thunderbird profile with the NSS of a Thunderbird for Windows, and
// set its preferences. Then Thunderbird of this side opens that profile, signs
// and decrypts with it. SMIME_TEST_THUNDERBIRD_WINDOWS names a folder of this
// side with the libraries (softokn3.dll and those beside it); no package of the
// machine has them, so this is run by hand: go test -tags mozilla.
func TestWineThunderbird(t *testing.T) {
	onlyFull(t, "Wine takes a while")
	libraries := os.Getenv("SMIME_TEST_THUNDERBIRD_WINDOWS")
	if libraries == "" {
		t.Fatal("SMIME_TEST_THUNDERBIRD_WINDOWS names no folder with the libraries of a Thunderbird for Windows")
	}
	platformtest.NeedPrograms(t, "thunderbird", "openssl")
	p, o := newPrefix(t), newPostOffice(t)
	s := &windowsSession{prefix: p, company: company(t, func(w *e2e.World) {
		w.Profile, w.Keys, w.Stores = "employee-dual", []string{"rsa-2048"}, []string{"windows", "nss:*"}
		w.Rule = []string{"mail: {sign: always, encrypt: user-decides}"}
		w.Employees[0].Account = strings.TrimSpace(p.run("wineprobe.exe", "whoami"))
	})}
	w := s.company
	profile, port := w.thunderbirdProfile(o, w.Home(w.account))
	s.installThunderbird(libraries, profile)
	s.testJoin(t)
	s.start("smime-helper.exe", "--supervise")
	var first status.Credential
	s.awaitStatus("Thunderbird is ready", func(r status.Report) bool {
		i := slices.IndexFunc(r.Credentials, func(c status.Credential) bool {
			return c.State == enroll.Active && c.Store == "nss:work.default" && c.Proof.OK() && len(c.Mail) == 1 && c.Mail[0].State == enroll.MailReady
		})
		if i >= 0 {
			first = r.Credentials[i]
		}
		return i >= 0 && len(r.Credentials) == 2 // the other lies where Outlook looks
	})
	t.Logf("status over the pipe:\n%s", s.run("smime-agent.exe", "status"))

	s.must(os.RemoveAll(profile))
	s.must(os.CopyFS(profile, os.DirFS(s.windowsProfile())))
	leaf := w.leafOf(first)
	b := startThunderbird(t, w.Home(w.account), profile, port)
	b.send("bob@partner.example", "first", "signed with what Windows made")
	w.judgeSigned(o, 1, "signed with what Windows made", leaf)
	w.deliverEncrypted(o, leaf, "secret one", "for the key that Windows made")
	if got := b.opens("secret one"); !strings.Contains(got, "for the key that Windows made") {
		t.Errorf("Thunderbird reads %q", got)
	}
	b.quit()
}

// windowsProfile is the profile's folder in the prefix.
func (s *windowsSession) windowsProfile() string {
	s.t.Helper()
	found, err := filepath.Glob(s.path("drive_c/users/*/AppData/Roaming"))
	s.must(err)
	found = slices.DeleteFunc(found, func(path string) bool { return strings.Contains(path, "/Public/") })
	if len(found) != 1 {
		s.t.Fatalf("roaming folders: %q", found)
	}
	return filepath.Join(found[0], "Thunderbird", "Profiles", "work.default")
}

// installThunderbird does what Thunderbird's installer and its first start do.
func (s *windowsSession) installThunderbird(libraries, profile string) {
	s.t.Helper()
	const program = "Program Files/Mozilla Thunderbird"
	s.must(os.CopyFS(s.path("drive_c/"+program), os.DirFS(libraries)))
	s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", `HKLM\Software\Mozilla\Mozilla Thunderbird\115.2.0 (x64 en-US)\Main`,
		"/v", "PathToExe", "/t", "REG_SZ", "/d", `C:\Program Files\Mozilla Thunderbird\thunderbird.exe`, "/f"))
	to := s.windowsProfile()
	s.must(os.CopyFS(to, os.DirFS(profile)))
	s.must(os.WriteFile(filepath.Join(to, "..", "..", "profiles.ini"), []byte("[Profile0]\r\nName=work\r\nIsRelative=1\r\nPath=Profiles/work.default\r\nDefault=1\r\n"), 0o600))
}
