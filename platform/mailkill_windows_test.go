package platform_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// childMailVariable has the two certificates between which the child goes back
// and forth, in hex.
const childMailVariable = "SMIME_TEST_CHILD_MAIL"

// mailKillTime is longer than the child needs for some rounds.
const mailKillTime = 60 * time.Millisecond

// twoWishes are what the child sets in turn: all that is ever written differs.
func twoWishes(t *testing.T, first, second []byte) []platform.MailSettings {
	t.Helper()
	var all []platform.MailSettings
	for i, der := range [][]byte{first, second} {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		w := platform.MailSettings{Signing: platform.RefTo(c), Encryption: platform.RefTo(c), Sign: platform.On, Encrypt: platform.On, Cipher: "aes-256"}
		if i > 0 {
			w.Sign, w.Encrypt, w.Cipher = platform.Off, platform.Off, "aes-192"
		}
		all = append(all, w)
	}
	return all
}

func onlyOutlookAccount(t *testing.T) platform.MailAccount {
	t.Helper()
	list, err := programNamed(t, "outlook").Accounts(t.Context(), outlookMailbox)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d accounts, %v", len(list), err)
	}
	return list[0]
}

// TestOutlookKilledChild is the child's part: it sets one, the other, and what was
// there before, until it is killed. As a test of its own it has nothing to do.
func TestOutlookKilledChild(t *testing.T) {
	first, second, ok := strings.Cut(os.Getenv(childMailVariable), " ")
	if !ok {
		return
	}
	a, err := hex.DecodeString(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(second)
	if err != nil {
		t.Fatal(err)
	}
	account, wishes := onlyOutlookAccount(t), twoWishes(t, a, b)
	fmt.Println("begin")
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for _, w := range wishes {
			if _, err := account.Apply(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		if err := account.Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func outlookValue(t *testing.T, name string) []byte {
	t.Helper()
	k, err := registry.OpenKey(registry.CURRENT_USER, outlookSection, registry.QUERY_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	raw, _, err := k.GetBinaryValue(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return raw
}

// TestOutlookKilled ends the writer of Outlook's values by TerminateProcess, round
// after round, at random moments of setting, changing and putting back. Each value
// is always one of those that were meant, whole, with what is somebody else's
// untouched; certificates never lag behind the switches that need them; the next
// look completes it; and at the end the very first octets come back.
func TestOutlookKilled(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 15
	}
	w := openOutlook(t)
	before, foreign := w.Bytes(), w.Foreign()
	first, second := platformtest.MailCertificate(t, outlookMailbox), platformtest.MailCertificate(t, outlookMailbox)
	wishes, account := twoWishes(t, first.Raw, second.Raw), onlyOutlookAccount(t)
	meant := map[string]map[string]string{"11020355": {}, "00030354": {}}
	note := func(when string) {
		for name := range meant {
			if value := string(outlookValue(t, name)); meant[name][value] == "" {
				meant[name][value] = when
			}
		}
	}
	note("former")
	for i, wish := range wishes {
		if _, err := account.Apply(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		note(fmt.Sprint("wish ", i))
	}
	if err := account.Undo(t.Context()); err != nil || !bytes.Equal(w.Bytes(), before) {
		t.Fatalf("undo before any kill: %v", err)
	}
	seen := map[string]int{}
	for range rounds {
		killMailWriter(t, first.Raw, second.Raw)
		state := ""
		for _, name := range []string{"11020355", "00030354"} {
			when, ok := meant[name][string(outlookValue(t, name))]
			if !ok {
				t.Fatalf("%s is half: %x", name, outlookValue(t, name))
			}
			state += when + "/"
		}
		seen[state]++
		if !bytes.Equal(w.Foreign(), foreign) {
			t.Fatal("something of others was changed")
		}
		if state == "former/wish 0/" {
			t.Error("the switches came before the certificates that they need")
		}
		wish := wishes[mathrand.IntN(len(wishes))]
		if _, err := account.Apply(t.Context(), wish); err != nil {
			t.Fatalf("the next look: %v", err)
		}
		if is, err := account.Settings(t.Context()); err != nil || len(is.Differing(wish)) > 0 {
			t.Fatalf("the next look left %v, %v", is.Differing(wish), err)
		}
		if mathrand.IntN(2) == 0 {
			continue // the next writer finds what this look set
		}
		if err := account.Undo(t.Context()); err != nil || !bytes.Equal(w.Bytes(), before) {
			t.Fatalf("undo after a kill: %v\n%s\nwant\n%s", err, w.Bytes(), before)
		}
	}
	if err := account.Undo(t.Context()); err != nil || !bytes.Equal(w.Bytes(), before) {
		t.Errorf("undo at the end: %v\n%s\nwant\n%s", err, w.Bytes(), before)
	}
	t.Logf("%d kills left, as security profile/flags: %v", rounds, seen)
	if len(seen) < 2 {
		t.Error("the kills all fell into the same moment; they show nothing")
	}
}

func killMailWriter(t *testing.T, first, second []byte) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOutlookKilledChild$")
	child.Env = append(os.Environ(), childMailVariable+"="+hex.EncodeToString(first)+" "+hex.EncodeToString(second))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	begun := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "begin" {
			begun = true
			time.AfterFunc(time.Duration(mathrand.Int64N(int64(mailKillTime))), func() { _ = child.Process.Kill() })
		}
	}
	_ = child.Wait() // killed, which is fine
	if !begun {
		t.Fatal("the child never began")
	}
}
