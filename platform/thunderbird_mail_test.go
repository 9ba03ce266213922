//go:build unix

package platform_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

const tbMailbox = "mei.lin@corp.example"

const tbPrefs = "// Mozilla User Preferences\r\n\r\n" +
	`user_pref("mail.account.account1.identities", "id1,id2");` + "\r\n" +
	`user_pref("mail.account.account1.server", "server1");` + "\r\n" +
	`user_pref("mail.accountmanager.accounts", "account1,account2");` + "\r\n" +
	`user_pref("mail.identity.default.sign_mail", true);` + "\r\n" +
	`user_pref("mail.identity.id1.fullName", "林 \"Mei\"; user_pref(");` + "\r\n" +
	`user_pref('mail.identity.id1.sign_mail', false);` + "\r\n" +
	`user_pref("mail.identity.id1.useremail", "Mei.Lin@corp.example");` + "\r\n" +
	`user_pref("mail.identity.id2.useremail", "boss@corp.example");` + "\r\n" +
	`user_pref("mail.identity.id3.useremail", "mei.lin@corp.example");` // of no account, and without an end

// thunderbirdHome is a home folder with a Thunderbird profile.
func thunderbirdHome(t *testing.T) (home, profile string) {
	t.Helper()
	home = t.TempDir()
	profile = filepath.Join(home, thunderbirdRoot, "abcd.default")
	if err := os.MkdirAll(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, thunderbirdRoot, "profiles.ini"), "[Profile0]\nIsRelative=1\nPath=abcd.default\n")
	write(t, filepath.Join(profile, "prefs.js"), tbPrefs)
	return home, profile
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func thunderbirdOf(t *testing.T, home string) platform.MailProgram {
	t.Helper()
	for _, p := range platform.MailPrograms(platform.MailOptions{Home: home}) {
		if p.Name() == "thunderbird" {
			return p
		}
	}
	t.Fatal("no Thunderbird among the mail programs")
	return nil
}

func TestThunderbirdMailProgram(t *testing.T) {
	platformtest.TestMailProgram(t, func(t *testing.T) platformtest.MailWorld {
		home, profile := thunderbirdHome(t)
		prefs := filepath.Join(profile, "prefs.js")
		var holder *exec.Cmd
		return platformtest.MailWorld{
			Program: thunderbirdOf(t, home), Mailbox: tbMailbox,
			Bytes: func() []byte { return read(t, prefs) },
			Foreign: func() []byte {
				var rest []string
				for _, line := range strings.SplitAfter(string(read(t, prefs)), "\n") {
					if !strings.Contains(line, "_cert_") && !strings.Contains(line, "id1.sign_mail") && !strings.Contains(line, "encryptionpolicy") {
						rest = append(rest, strings.TrimRight(line, "\r\n"))
					}
				}
				return []byte(strings.TrimSpace(strings.Join(rest, "\n")))
			},
			Running: func(running bool) {
				if running {
					holder = holdProfile(t, profile)
					return
				}
				_ = holder.Process.Kill()
				_ = holder.Wait()
			},
			Managed: func(platform.MailSettings) {
				write(t, filepath.Join(profile, "user.js"), `user_pref("mail.identity.id1.sign_mail", false);`+"\n")
			},
		}
	})
}

// holdProfile locks a profile from another process, as Thunderbird does.
func holdProfile(t *testing.T, profile string) *exec.Cmd {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHoldProfileChild$")
	child.Env = append(os.Environ(), "SMIME_TEST_HOLD="+profile)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "held" {
			return child
		}
	}
	t.Fatal("the profile was not held")
	return nil
}

// TestHoldProfileChild is the child's part; as a test of its own it has nothing to do.
func TestHoldProfileChild(t *testing.T) {
	profile := os.Getenv("SMIME_TEST_HOLD")
	if profile == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(profile, ".parentlock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	time.Sleep(time.Hour)
	t.Log(f.Name()) // keeps the file, and its lock, until then
}

// TestThunderbirdLeftoverLocks: what a crash left behind holds nothing up.
func TestThunderbirdLeftoverLocks(t *testing.T) {
	for link, busy := range map[string]bool{
		"127.0.1.1:+1": false, "127.0.0.1:99999999": false, fmt.Sprintf("127.0.0.1:%d", os.Getpid()): true,
		"192.0.2.7:99999999": true, "nonsense": false, // a network drive: the other machine's process may live
	} {
		home, profile := thunderbirdHome(t)
		write(t, filepath.Join(profile, ".parentlock"), "")
		if err := os.Symlink(link, filepath.Join(profile, "lock")); err != nil {
			t.Fatal(err)
		}
		all, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
		if err != nil || len(all) != 1 {
			t.Fatalf("%d accounts, %v", len(all), err)
		}
		if _, err := all[0].Apply(t.Context(), platform.MailSettings{Sign: platform.On}); errors.Is(err, platform.ErrBusy) != busy || !busy && err != nil {
			t.Errorf("link to %s: %v", link, err)
		}
	}
}

// TestThunderbirdBrokenPrefs: a file that cannot be understood stays as it is, and
// the other profile is served.
func TestThunderbirdBrokenPrefs(t *testing.T) {
	home, profile := thunderbirdHome(t)
	second := filepath.Join(home, thunderbirdRoot, "second")
	if err := os.Mkdir(second, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, thunderbirdRoot, "profiles.ini"), "[Profile0]\nIsRelative=1\nPath=abcd.default\n[Profile1]\nIsRelative=1\nPath=second\n")
	write(t, filepath.Join(second, "prefs.js"), tbPrefs)
	const broken = "user_pref(\"a\", 1);\nuser_pref(\"half"
	write(t, filepath.Join(profile, "prefs.js"), broken)
	all, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
	if err == nil || !strings.Contains(err.Error(), "line 2") || len(all) != 1 || all[0].Info().Store != "nss:second" {
		t.Errorf("%d accounts, %v", len(all), err)
	}
	if got := read(t, filepath.Join(profile, "prefs.js")); string(got) != broken {
		t.Errorf("now %q", got)
	}
}

// TestThunderbirdEmptyRecords: a record for Undo that holds nothing is as good as
// none, also where it is JSON of that form only by name.
func TestThunderbirdEmptyRecords(t *testing.T) {
	for _, record := range []string{"null", "{}", `{"id1": null}`, `{"id1": {"statements": null, "ended": "x"}}`} {
		home, profile := thunderbirdHome(t)
		write(t, filepath.Join(profile, "smime-agent-undo.json"), record)
		list, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
		if err != nil || len(list) != 1 {
			t.Fatal(err)
		}
		if _, err := list[0].Apply(t.Context(), platform.MailSettings{Sign: platform.On}); err != nil {
			t.Errorf("%s: %v", record, err)
		}
		if err := list[0].Undo(t.Context()); err != nil {
			t.Errorf("%s: %v", record, err)
		}
		if got := string(read(t, filepath.Join(profile, "prefs.js"))); got != tbPrefs {
			t.Errorf("%s: put back is %q", record, got)
		}
	}
}

// TestThunderbirdRewritten: after Thunderbird has written its file anew, in its
// own order and with more in it, Undo takes back ours and nothing else.
func TestThunderbirdRewritten(t *testing.T) {
	home, profile := thunderbirdHome(t)
	account := func() platform.MailAccount {
		all, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
		if err != nil || len(all) != 1 {
			t.Fatalf("%d accounts, %v", len(all), err)
		}
		return all[0]
	}
	ref := platform.RefTo(platformtest.MailCertificate(t, tbMailbox))
	if _, err := account().Apply(t.Context(), platform.MailSettings{Signing: ref, Sign: platform.On}); err != nil {
		t.Fatal(err)
	}
	prefs := filepath.Join(profile, "prefs.js")
	lines := strings.SplitAfter(string(read(t, prefs)), "\n")
	for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	write(t, prefs, "user_pref(\"later\", 1);\n"+strings.Join(lines, ""))
	if err := account().Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := string(read(t, prefs))
	if strings.Contains(got, "_cert_") || !strings.Contains(got, `user_pref('mail.identity.id1.sign_mail', false);`) || !strings.Contains(got, `user_pref("later", 1);`) {
		t.Errorf("after Undo:\n%s", got)
	}
}

// TestMailKilledChild is the child's part of the next one.
func TestMailKilledChild(t *testing.T) {
	home := os.Getenv("SMIME_TEST_MAIL_HOME")
	if home == "" {
		return
	}
	all, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d accounts, %v", len(all), err)
	}
	c := platformtest.MailCertificate(t, tbMailbox)
	fmt.Println("begin")
	for i := range 1000 {
		want := platform.MailSettings{Signing: platform.RefTo(c), Encryption: platform.RefTo(c), Sign: platform.Off, Encrypt: platform.Off}
		if i%2 == 0 {
			want.Sign, want.Encrypt = platform.On, platform.On
		}
		if _, err := all[0].Apply(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			if err := all[0].Undo(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestThunderbirdKilled: SIGKILL at a random moment leaves the old settings or
// new ones, whole, and Undo finds the way back to the very first bytes.
func TestThunderbirdKilled(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	home, profile := thunderbirdHome(t)
	prefs := filepath.Join(profile, "prefs.js")
	for range rounds {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMailKilledChild$")
		child.Env = append(os.Environ(), "SMIME_TEST_MAIL_HOME="+home)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "begin" {
		}
		time.Sleep(time.Duration(mathrand.Int64N(int64(30 * time.Millisecond))))
		_ = child.Process.Kill()
		_ = child.Wait()
		all, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
		if err != nil || len(all) != 1 {
			t.Fatalf("after a kill: %d accounts, %v", len(all), err)
		}
		s, err := all[0].Settings(t.Context())
		if whole := s.Sign == s.Encrypt && s.Signing.Same(s.Encryption); err != nil || !whole {
			t.Fatalf("after a kill: %+v, %v\n%s", s, err, read(t, prefs))
		}
		if err := all[0].Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := read(t, prefs); !bytes.Equal(got, []byte(tbPrefs)) {
			t.Fatalf("after Undo:\n%q", got)
		}
	}
}
