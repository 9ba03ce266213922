package platform_test

import (
	"bufio"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"smime-agent/platform"
	"smime-agent/platform/internal/wincrypt"
	"smime-agent/platform/platformtest"
)

const (
	childKeyVariable = "SMIME_TEST_CHILD_KEY"
	windowsKillTime  = 700 * time.Millisecond // about what making and filing takes
)

// TestWindowsKilledChild is the child's part: key and certificate. As a test of
// its own it has nothing to do.
func TestWindowsKilledChild(t *testing.T) {
	id := platform.KeyID(os.Getenv(childKeyVariable))
	if id == "" {
		return
	}
	s, ca := windowsStore(t), platformtest.NewAuthority(t)
	fmt.Println("begin")
	key, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048, Sign: true, Decrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("made")
	for later := range 8 { // several, so that many kills fall into the filing
		if err := s.Install(t.Context(), id, ca.Chain(t, key.Public(), later)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("installed")
	}
}

// killChild starts a child, kills it at a random moment, and says how far it
// reported to have come.
func killChild(t *testing.T, id platform.KeyID) (made bool, installed int) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWindowsKilledChild$")
	child.Env = append(os.Environ(), childKeyVariable+"="+string(id))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	begun := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch lines.Text() {
		case "begin":
			begun = true
			time.AfterFunc(time.Duration(mathrand.Int64N(int64(windowsKillTime))), func() { _ = child.Process.Kill() })
		case "made":
			made = true
		case "installed":
			installed++
		}
	}
	_ = child.Wait() // killed or not, both are fine
	if !begun {
		t.Fatal("the child never began")
	}
	return made, installed
}

// TestWindowsKilled ends the maker of a key and filer of certificates by
// TerminateProcess, round after round. What it reported stays, a second attempt
// ends with one key that works and a certificate that leads to it, and an old
// credential beside it is never touched.
func TestWindowsKilled(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	s, ca, witness := windowsStore(t), platformtest.NewAuthority(t), platformtest.NewID(t)
	old := ca.Chain(t, makeWindowsKey(t, s, witness).Public(), 0)
	if err := s.Install(t.Context(), witness, old); err != nil {
		t.Fatal(err)
	}
	halves, wholes, filed := 0, 0, 0
	for range rounds {
		id := platformtest.NewID(t)
		made, installed := killChild(t, id)
		info, there := listedAs(t, s, id)
		switch {
		case there && info.Public == nil:
			halves++
		case there:
			wholes++
		}
		if made && info.Public == nil {
			t.Error("a key that was reported is gone")
		}
		if installed > 0 {
			filed++
			if !info.Certified {
				t.Error("a certificate that was reported is gone")
			}
		}
		secondAttempt(t, s, ca, id, made)
	}
	t.Logf("%d rounds: %d left half a key, %d a whole one, %d a certificate too", rounds, halves, wholes, filed)
	if wholes == 0 || wholes == rounds && filed == rounds {
		t.Error("the kills all fell into the same moment; they show nothing")
	}
	decrypts(t, windowsStore(t), witness, old[0])
}

// secondAttempt does what the helper does after a crash.
func secondAttempt(t *testing.T, s platform.Store, ca *platformtest.Authority, id platform.KeyID, made bool) {
	t.Helper()
	key, err := s.Open(t.Context(), id)
	if errors.Is(err, platform.ErrNotFound) && !made {
		key, err = s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048, Sign: true, Decrypt: true})
	}
	if err != nil {
		t.Fatalf("second attempt: %v", err)
	}
	t.Cleanup(func() { forget(t, s, id) })
	chain := ca.Chain(t, key.Public(), 20)
	if err := s.Install(t.Context(), id, chain); err != nil {
		t.Fatalf("Install: %v", err)
	}
	decrypts(t, windowsStore(t), id, chain[0])
	for _, f := range entries(t, wincrypt.My) {
		c, err := x509.ParseCertificate(f.DER)
		if err != nil {
			continue
		}
		if p, ok := key.Public().(*rsa.PublicKey); ok && p.Equal(c.PublicKey) && f.Key.Container != string(id) {
			t.Errorf("a certificate for the key names %q", f.Key.Container)
		}
	}
}
