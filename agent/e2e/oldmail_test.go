//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

// Twenty generations of keys: five of each of four mailboxes, since the agent
// makes at most six enrollments a day for one.
const (
	mailboxesWithHistory = 4
	generations          = 5
)

// TestOldMail: mail to each of twenty generations of keys, made by openssl; the
// doctor accounts for all of it. A key that is taken away by hand shows exactly
// its messages, as a condition too, and no more when it is back.
func TestOldMail(t *testing.T) {
	t.Parallel()
	platformtest.NeedPrograms(t, "openssl")
	w := company(t, func(w *e2e.World) {
		account := w.Employees[0].Account
		w.Profile, w.Employees = "employee-dual", nil
		for i := range mailboxesWithHistory {
			w.Employees = append(w.Employees, e2e.Employee{Account: account, Mailbox: fmt.Sprintf("box%d@example.com", i), Given: "Alice", Surname: "Example"})
		}
	})
	keys := w.history()
	c := w.corpus(keys)
	got := w.doctor(0, c.dir)
	c.compare(t, got, "")
	if got.Files == 0 || got.Closed+got.Unseen+got.Obscure+got.FailedFiles > 0 || !got.Kept {
		t.Errorf("all keys are here: %+v", got)
	}
	r, err := w.Report(w.within())
	w.must(err)
	for _, k := range r.Credentials {
		if k.NeededBy != c.messages[k.ID] {
			t.Errorf("%s is needed by %d messages in the status, want %d", k.ID, k.NeededBy, c.messages[k.ID])
		}
	}
	w.removeByHand(c, keys[7])
}

// removeByHand takes a key file away, and brings it back.
func (w *world) removeByHand(c *corpus, victim status.Credential) {
	t := w.t
	path := filepath.Join(w.Home(w.account), ".local/share/smime-agent/keys", string(victim.Key)+".key")
	w.must(os.Rename(path, path+".away"))
	got := w.doctor(2, c.dir)
	c.compare(t, got, victim.ID)
	if got.Closed != c.alone[victim.ID] || got.Opened != got.Encrypted-got.Closed {
		t.Errorf("without %s: %+v, want %d closed", victim.ID, got, c.alone[victim.ID])
	}
	r := w.await("the condition", func(r status.Report) bool { _, ok := condition(r, status.OldMailUnreadable); return ok })
	raised, _ := condition(r, status.OldMailUnreadable)
	if raised.Enrollment != victim.ID || raised.Mailbox != victim.Mailbox || !strings.Contains(raised.Detail, victim.Serial) ||
		!strings.Contains(raised.Detail, fmt.Sprintf("messages: %d,", c.alone[victim.ID])) {
		t.Errorf("condition %+v, want one of %s", raised, victim.ID)
	}
	w.must(os.Rename(path+".away", path))
	c.compare(t, w.doctor(0, c.dir), "")
	w.await("the end of the condition", func(r status.Report) bool { _, ok := condition(r, status.OldMailUnreadable); return !ok })
}

// history renews every mailbox until it has its generations, and gives them all.
func (w *world) history() []status.Credential {
	w.t.Helper()
	w.open()
	w.login(e2e.HelperOptions{})
	for g := range generations {
		r := w.await(fmt.Sprintf("generation %d", g), func(r status.Report) bool {
			active, old := 0, 0
			for _, c := range r.Credentials {
				active += bit(c.State == enroll.Active && c.ReplacedBy == "")
				old += bit(c.State == enroll.Kept)
			}
			return active == mailboxesWithHistory && old == g*mailboxesWithHistory
		})
		if g == generations-1 {
			slices.SortFunc(r.Credentials, func(a, b status.Credential) int { return strings.Compare(string(a.ID), string(b.ID)) })
			return r.Credentials
		}
		w.agent("renew")
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// corpus is mail to each key, and how much of it.
type corpus struct {
	dir string
	// messages each key can open, and alone those that no other key can.
	messages, alone map[enroll.ID]int
	total           int
}

// corpus writes a Maildir, an mbox and the profile of a Thunderbird. What stands
// in it is encrypted by openssl: to one key, by its certificate or by its key's
// identifier, as a whole or within a multipart, and some to two keys.
func (w *world) corpus(keys []status.Credential) *corpus {
	w.t.Helper()
	c := &corpus{dir: filepath.Join(w.Dir, "mail"), messages: map[enroll.ID]int{}, alone: map[enroll.ID]int{}}
	profile := filepath.Join(c.dir, "profile", "Mail", "Local Folders")
	for _, dir := range []string{"Maildir/cur", "Maildir/new", "Maildir/tmp", "Maildir/.Archive/cur"} {
		w.must(os.MkdirAll(filepath.Join(c.dir, dir), 0o700))
	}
	w.must(os.MkdirAll(profile, 0o700))
	w.must(os.WriteFile(filepath.Join(profile, "Old.msf"), nil, 0o600))
	w.must(os.WriteFile(filepath.Join(w.Dir, "body"), []byte("Content-Type: text/plain\r\n\r\nnobody else's business\r\n"), 0o600))
	var inbox, old []byte
	const from = "From - Mon Nov 16 10:00:00 2026\n"
	for i, k := range keys {
		for n := range 1 + i%3 {
			name := filepath.Join(c.dir, "Maildir", []string{"cur", ".Archive/cur"}[n%2], fmt.Sprintf("%d.%d:2,S", i, n))
			w.must(os.WriteFile(name, c.letter(w, k), 0o600))
		}
		inbox = slices.Concat(inbox, []byte(from), c.letter(w, k, "-keyid"), []byte("\n"))
		mixed := fmt.Sprintf("Content-Type: multipart/mixed; boundary=%q\n\n--b%d\n\ntext\n--b%d\n%s\n--b%d--\n", fmt.Sprint("b", i), i, i, c.letter(w, k), i)
		old = slices.Concat(old, []byte(from), []byte(mixed), []byte("\n"), []byte(from), []byte("Subject: plain\n\nhello\n\n"))
		c.total++
	}
	two := append(w.letter([]status.Credential{keys[7], keys[8]}), '\n')
	c.messages[keys[7].ID]++
	c.messages[keys[8].ID]++
	c.total++
	w.must(os.WriteFile(filepath.Join(c.dir, "inbox"), slices.Concat(inbox, []byte(from), two), 0o600))
	w.must(os.WriteFile(filepath.Join(profile, "Old"), old, 0o600))
	return c
}

// letter makes one message to one key, and counts it.
func (c *corpus) letter(w *world, k status.Credential, options ...string) []byte {
	c.messages[k.ID]++
	c.alone[k.ID]++
	c.total++
	return w.letter([]status.Credential{k}, options...)
}

// letter lets openssl encrypt a message to certificates as they lie in the store.
func (w *world) letter(to []status.Credential, options ...string) []byte {
	w.t.Helper()
	out := filepath.Join(w.Dir, "letter")
	args := append([]string{"cms", "-encrypt", "-aes-256-cbc", "-in", filepath.Join(w.Dir, "body"), "-out", out}, options...)
	for _, k := range to {
		files, err := filepath.Glob(filepath.Join(w.Home(w.account), ".local/share/smime-agent/keys", string(k.Key)+".*.crt"))
		w.must(err)
		args = append(args, files...)
	}
	w.run("openssl", args...)
	raw, err := os.ReadFile(out)
	w.must(err)
	return raw
}

// doctor looks through the mail as the employee, and wants that exit code.
func (w *world) doctor(code int, path string) status.OldMail {
	w.t.Helper()
	cmd := w.Command(w.within(), "smime-agent", "doctor", "--mail", path, "--json", "--address", w.Address())
	cmd.Env = append(cmd.Env, "HOME="+w.Home(w.account))
	raw, err := cmd.Output()
	if exitOf(err) != code {
		exit, _ := errors.AsType[*exec.ExitError](err)
		w.t.Fatalf("exit code %d, want %d: %v, %s", exitOf(err), code, exit, raw)
	}
	var m status.OldMail
	w.must(json.Unmarshal(raw, &m))
	return m
}

// compare lays what the doctor said of each key against what was written. gone is
// the key that is not there: messages that another key opens do not need it.
func (c *corpus) compare(t *testing.T, got status.OldMail, gone enroll.ID) {
	t.Helper()
	want := maps.Clone(c.messages)
	if gone != "" {
		want[gone] = c.alone[gone]
	}
	if plain := len(want); got.Messages != c.total || got.Encrypted != c.total-plain {
		t.Errorf("%d messages, %d encrypted; want %d, %d", got.Messages, got.Encrypted, c.total, c.total-plain)
	}
	said := map[enroll.ID]int{}
	for _, k := range got.Keys {
		said[k.Enrollment] += k.Messages
		if presence := map[bool]enroll.KeyPresence{true: enroll.KeyGone, false: enroll.KeyHere}[k.Enrollment == gone]; k.Presence != presence {
			t.Errorf("%s is %s, want %s", k.Enrollment, k.Presence, presence)
		}
	}
	if !maps.Equal(said, want) {
		t.Errorf("by key %v, want %v", said, want)
	}
}
