package platform_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// writerHome and writerTold tell a child of the tests where to write, and where
// to say what came of it.
const (
	writerHome = "SMIME_TEST_WRITER_HOME"
	writerTold = "SMIME_TEST_WRITER_TOLD"
)

// writerIDs are the keys that the child makes.
var writerIDs = []platform.KeyID{platform.OurPrefix + "writer1", platform.OurPrefix + "writer2"}

// writer is the child: all that the agent writes beside its record, one after the other.
type writer struct {
	t    *testing.T
	home string
	told *os.File
	at   int64
}

// say writes with pwrite(2), which no test of failing calls makes fail here.
func (w *writer) say(words ...any) {
	line := []byte(fmt.Sprintln(words...))
	if _, err := w.told.WriteAt(line, w.at); err != nil {
		w.t.Fatal(err)
	}
	w.at += int64(len(line))
}

// do says what came of a step, and, for the power loss, with write(2) too.
func (w *writer) do(what string, step func() (string, error)) {
	result, err := step()
	if err != nil {
		w.say("failed", what, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	w.say("did", what, result)
	_, _ = fmt.Fprintln(os.Stdout, "did", what, result)
}

// TestWriterChild is the child's part of the tests below. As a test of its own
// it has nothing to do.
func TestWriterChild(t *testing.T) {
	home := os.Getenv(writerHome)
	if home == "" {
		return
	}
	runtime.LockOSThread() // strace counts the calls of each thread
	told, err := os.OpenFile(os.Getenv(writerTold), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, home: home, told: told}
	w.say("began")
	w.secrets()
	w.keys()
	w.preferences()
	w.say("ended")
}

// secretValue is large, so that a part of it would be seen.
func secretValue(n int) []byte { return bytes.Repeat([]byte{byte('0' + n)}, 30_000) }

func (w *writer) secrets() {
	for n, name := range []string{"identity", "identity", "token", "identity"} {
		w.do(fmt.Sprintf("put %s %d", name, n), func() (string, error) {
			s, err := platform.Secrets(filepath.Join(w.home, "state"))
			if err != nil {
				return "", err
			}
			return "", s.Put(w.t.Context(), name, secretValue(n))
		})
	}
	w.do("delete token", func() (string, error) {
		s, err := platform.Secrets(filepath.Join(w.home, "state"))
		if err != nil {
			return "", err
		}
		return "", s.Delete(w.t.Context(), "token")
	})
}

func (w *writer) keys() {
	authority := platformtest.NewAuthority(w.t)
	store := fileStoreOf(w.t, w.home)
	for _, id := range writerIDs {
		var key platform.Key
		w.do("create "+string(id), func() (sum string, err error) {
			key, err = store.Create(w.t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true})
			if err != nil {
				return "", err
			}
			return sumOf(key.Public())
		})
		if key == nil {
			continue
		}
		w.do("install "+string(id), func() (string, error) {
			return "", store.Install(w.t.Context(), id, authority.Chain(w.t, key.Public(), 0))
		})
	}
}

func (w *writer) preferences() {
	c := platformtest.MailCertificate(w.t, tbMailbox)
	apply := func(s platform.Switch) func() (string, error) {
		return func() (string, error) {
			account, err := onlyAccount(w.t, w.home)
			if err != nil {
				return "", err
			}
			_, err = account.Apply(w.t.Context(), platform.MailSettings{Signing: platform.RefTo(c), Encryption: platform.RefTo(c), Sign: s, Encrypt: s})
			return "", err
		}
	}
	w.do("apply on", apply(platform.On))
	w.do("apply off", apply(platform.Off))
	w.do("undo", func() (string, error) {
		account, err := onlyAccount(w.t, w.home)
		if err != nil {
			return "", err
		}
		return "", account.Undo(w.t.Context())
	})
	w.do("apply on again", apply(platform.On))
}

func fileStoreOf(t *testing.T, home string) platform.Store {
	t.Helper()
	stores, _ := platform.Stores(t.Context(), platform.StoreOptions{Home: home}) // others may be missing
	for _, s := range stores {
		if s.Info().Name == "file" {
			return s
		}
	}
	t.Fatal("no store of files")
	return nil
}

func onlyAccount(t *testing.T, home string) (platform.MailAccount, error) {
	t.Helper()
	all, err := thunderbirdOf(t, home).Accounts(t.Context(), tbMailbox)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%d accounts", len(all))
	}
	return all[0], nil
}

func sumOf(public any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8]), err
}

// writerWorld is a home as the child finds it.
func writerWorld(t *testing.T) (home string) {
	t.Helper()
	home, _ = thunderbirdHome(t)
	return home
}

const writerPrefs = thunderbirdRoot + "/abcd.default/prefs.js"

// startWriter runs the child to its end and gives what it said.
func startWriter(t *testing.T, home string, before ...string) []string {
	t.Helper()
	told := filepath.Join(t.TempDir(), "told")
	args := append(before, os.Args[0], "-test.run=^TestWriterChild$")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), writerHome+"="+home, writerTold+"="+told)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(read(t, told))), "\n")
	if lines[len(lines)-1] != "ended" {
		t.Fatalf("the child did not come to its end: %v\n%s\n%s", err, strings.Join(lines, "\n"), out)
	}
	return lines
}

// checkWritten holds what is on the disk to what was acknowledged. Whatever was
// not, is there as a whole or not at all, and everything can be done again.
func checkWritten(t *testing.T, home string, lines []string) error {
	t.Helper()
	did := map[string]string{}
	for _, l := range lines {
		rest, ok := strings.CutPrefix(l, "did ")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		step := strings.Join(f[:min(len(f), 2)], " ")
		if f[0] == "put" {
			step = strings.Join(f[:3], " ")
		}
		did[step] = f[len(f)-1]
	}
	return errors.Join(checkSecretsWritten(t, home, did), checkKeysWritten(t, home, did), checkPrefsWritten(t, home))
}

func checkSecretsWritten(t *testing.T, home string, did map[string]string) error {
	s, err := platform.Secrets(filepath.Join(home, "state"))
	if err != nil {
		return err
	}
	last := map[string]int{"identity": -1, "token": -1}
	for n, name := range []string{"identity", "identity", "token", "identity"} {
		if _, ok := did[fmt.Sprintf("put %s %d", name, n)]; ok {
			last[name] = n
		}
	}
	_, deleted := did["delete token"]
	for name, least := range last {
		got, err := s.Get(t.Context(), name)
		switch {
		case name == "token" && deleted:
			if !errors.Is(err, platform.ErrNotFound) {
				return fmt.Errorf("I1: the token was deleted and is there: %w", err)
			}
		case errors.Is(err, platform.ErrNotFound) && least < 0: // it never was
		case errors.Is(err, platform.ErrNotFound) && name == "token": // its deletion may have got through
		case err != nil:
			return fmt.Errorf("I1: secret %s: %w", name, err)
		case len(got) != 30_000 || len(bytes.Trim(got, string(got[:1]))) != 0 || int(got[0]-'0') < least:
			return fmt.Errorf("I1: secret %s has %d bytes, begins %.1q, at least %d was acknowledged", name, len(got), got, least)
		}
		if err := s.Put(t.Context(), "again", []byte("x")); err != nil {
			return fmt.Errorf("again: %w", err)
		}
	}
	return nil
}

func checkKeysWritten(t *testing.T, home string, did map[string]string) error {
	store := fileStoreOf(t, home)
	for _, id := range writerIDs {
		sum, made := did["create "+string(id)]
		_, installed := did["install "+string(id)]
		key, err := store.Open(t.Context(), id)
		if err != nil && made {
			return fmt.Errorf("I1: key %s was made and does not open: %w", id, err)
		}
		if made {
			if got, err := sumOf(key.Public()); err != nil || got != sum {
				return fmt.Errorf("I1: key %s is another: %s, %w", id, got, err)
			}
		}
		if _, err := store.Find(t.Context(), id); err != nil && installed {
			return fmt.Errorf("I1: the certificate of %s was installed: %w", id, err)
		}
		if _, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true}); err != nil && !errors.Is(err, platform.ErrExists) {
			return fmt.Errorf("create %s again: %w", id, err)
		}
		if key, err = store.Open(t.Context(), id); err != nil {
			return fmt.Errorf("key %s, made again: %w", id, err)
		}
		if err := store.Install(t.Context(), id, platformtest.NewAuthority(t).Chain(t, key.Public(), 1)); err != nil {
			return fmt.Errorf("install %s again: %w", id, err)
		}
	}
	return nil
}

// checkPrefsWritten wants preferences as a whole, and a way back to the first ones.
func checkPrefsWritten(t *testing.T, home string) error {
	account, err := onlyAccount(t, home)
	if err != nil {
		return fmt.Errorf("preferences: %w", err)
	}
	s, err := account.Settings(t.Context())
	if whole := s.Sign == s.Encrypt && s.Signing.Same(s.Encryption); err != nil || !whole {
		return fmt.Errorf("preferences by half: %+v, %w", s, err)
	}
	if err := account.Undo(t.Context()); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	if got := read(t, filepath.Join(home, writerPrefs)); !bytes.Equal(got, []byte(tbPrefs)) {
		return fmt.Errorf("after Undo the preferences are %q", got)
	}
	return nil
}

// TestWritesFail is case F3 for all that is written beside the record: the n-th
// call fails, for every n, once or from then on. What was acknowledged is there,
// what was not is whole or not there, no half file lies about, and all goes on
// when calls work again.
func TestWritesFail(t *testing.T) {
	platformtest.NeedPrograms(t, "strace")
	step := 3
	if os.Getenv(allCalls) != "" {
		step = 1
	}
	for _, c := range []struct{ call, errno, andOn string }{
		{"write", "ENOSPC", ""}, {"write", "EIO", "+"}, {"fsync", "EIO", ""}, {"fsync", "EIO", "+"},
		{"renameat", "ENOSPC", ""}, {"renameat", "EROFS", "+"}, {"fchmod", "EPERM", ""}, {"unlinkat", "EIO", ""}, {"mkdirat", "ENOSPC", ""},
		{"openat", "EMFILE", ""},
	} {
		if testing.Short() && c.call != "write" && c.call != "renameat" {
			continue
		}
		t.Run(c.call+" "+c.errno+c.andOn, func(t *testing.T) {
			t.Parallel()
			failWrites(t, c.call, c.errno, c.andOn, step)
		})
	}
}

// allCalls has every call fail, not only some.
const allCalls = "SMIME_TEST_ALL"

func failWrites(t *testing.T, call, errno, andOn string, step int) {
	if call == "unlinkat" || call == "mkdirat" {
		step = 1 // there are but a few
	}
	first := 1
	if call == "openat" {
		first = 20 // before it are those of the Go runtime and of the tests themselves
	}
	quiet, hits := 0, 0
	for n := first + mathrand.IntN(step); n < 400; n += step {
		home := writerWorld(t)
		inject := fmt.Sprintf("inject=%s:error=%s:when=%d%s", call, errno, n, andOn)
		lines := startWriter(t, home, "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", inject)
		failed := 0
		for _, l := range lines {
			if strings.HasPrefix(l, "failed ") {
				failed++
			}
		}
		if andOn == "" && failed > 1 {
			t.Fatalf("n=%d: one bad call failed %d steps:\n%s", n, failed, strings.Join(lines, "\n"))
		}
		if call != "unlinkat" && andOn == "" {
			noLeftovers(t, home)
		}
		if err := checkWritten(t, home, lines); err != nil {
			t.Fatalf("n=%d: %v\n%s", n, err, strings.Join(lines, "\n"))
		}
		if hits += failed; failed > 0 {
			quiet = 0
		} else if quiet++; quiet*step > 12 { // not every call is one that matters
			if t.Logf("%d steps failed, none any more at n=%d", hits, n); hits == 0 {
				t.Error("nothing was hit")
			}
			return
		}
	}
	t.Error("no run went through")
}

// noLeftovers wants no file in the making.
func noLeftovers(t *testing.T, home string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".writing-") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWritesLosePower is case F2 for the same.
func TestWritesLosePower(t *testing.T) {
	platformtest.NeedPrograms(t, "strace")
	perCall, seed := 4, mathrand.Uint64()
	if os.Getenv(allCalls) != "" {
		perCall = 20
	}
	t.Logf("seed %d", seed)
	home, log := writerWorld(t), filepath.Join(t.TempDir(), "strace")
	ini := filepath.Join(thunderbirdRoot, "profiles.ini")
	before := map[string][]byte{writerPrefs: read(t, filepath.Join(home, writerPrefs)), ini: read(t, filepath.Join(home, ini))}
	startWriter(t, home, platformtest.RecordWrites(log)...)
	written, err := platformtest.ReadWriteLog(log)
	if err != nil {
		t.Fatal(err)
	}
	p := platformtest.PowerLoss{Log: written, Root: home, Before: before, PerCall: perCall, Random: mathrand.New(mathrand.NewPCG(seed, 0))}
	n, err := p.Each(func(c platformtest.Crash) error {
		dir := t.TempDir()
		if err := c.Put(dir); err != nil {
			return err
		}
		var lines []string
		for _, s := range c.Said {
			if strings.HasPrefix(s.Text, "did ") {
				lines = append(lines, strings.TrimSpace(s.Text))
			}
		}
		return errors.Join(checkWritten(t, dir, lines), os.RemoveAll(dir))
	})
	if err != nil {
		t.Error(err)
	}
	if n < 45 {
		t.Errorf("only %d states", n)
	}
	t.Logf("%d states of the disk", n)
}
