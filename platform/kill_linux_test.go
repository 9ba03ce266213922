//go:build cgo

package platform_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// killed is a store whose maker is killed in the middle of its work.
type killed struct {
	home, store, pin, module, label string
	algorithm                       platform.KeyAlgorithm
	rounds                          int
	// within is how long after its start the attempt is killed at the latest.
	within time.Duration
}

func (k killed) options() platform.StoreOptions {
	o := platform.StoreOptions{Home: k.home, PIN: func(context.Context, string, bool) (string, error) { return k.pin, nil }}
	if k.module != "" {
		o.Modules = []platform.Module{{Path: k.module, TokenLabel: k.label}}
	}
	return o
}

// TestKilledChild is the child's part: it makes the key that it is told to
// make. As a test of its own it has nothing to do.
func TestKilledChild(t *testing.T) {
	id := platform.KeyID(os.Getenv("SMIME_TEST_CHILD_KEY"))
	if id == "" {
		return
	}
	k := killed{home: os.Getenv("SMIME_TEST_CHILD_HOME"), pin: os.Getenv("SMIME_TEST_CHILD_PIN"),
		module: os.Getenv("SMIME_TEST_CHILD_MODULE"), label: os.Getenv("SMIME_TEST_CHILD_LABEL")}
	store := find(t, k.options(), os.Getenv("SMIME_TEST_CHILD_STORE"))
	fmt.Println("begin")
	spec := platform.KeySpec{Algorithm: platform.KeyAlgorithm(os.Getenv("SMIME_TEST_CHILD_KIND")), Sign: true}
	if _, err := store.Create(t.Context(), id, spec); err != nil {
		t.Fatal(err)
	}
	fmt.Println("made")
}

// round starts a child, kills it at a random moment of its Create, and says
// whether it had reported success.
func (k killed) round(t *testing.T, id platform.KeyID) (reported bool) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledChild$")
	child.Env = append(os.Environ(), "SMIME_TEST_CHILD_KEY="+string(id), "SMIME_TEST_CHILD_HOME="+k.home,
		"SMIME_TEST_CHILD_STORE="+k.store, "SMIME_TEST_CHILD_PIN="+k.pin, "SMIME_TEST_CHILD_MODULE="+k.module,
		"SMIME_TEST_CHILD_LABEL="+k.label, "SMIME_TEST_CHILD_KIND="+string(k.algorithm))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines, begun := bufio.NewScanner(out), false
	for lines.Scan() {
		switch lines.Text() {
		case "begin":
			begun = true
			time.AfterFunc(time.Duration(mathrand.Int64N(int64(k.within))), func() { _ = child.Process.Kill() })
		case "made":
			reported = true
		}
	}
	_ = child.Wait() // killed or not, both are fine
	if !begun {
		t.Fatal("the child never began")
	}
	return reported
}

// TestStoreKilled kills the maker of a key with SIGKILL, round after round,
// and demands each time that a second attempt ends with exactly one usable key.
func TestStoreKilled(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for _, password := range []string{"", "correct horse"} {
		t.Run("nss p-256 "+password, func(t *testing.T) {
			n := platformtest.NSSDir(t, password)
			k := killed{home: n.Home, store: "nss:default", pin: password, algorithm: platform.P256, rounds: rounds, within: 40 * time.Millisecond}
			k.run(t)
			intact(t, n.Dir)
		})
	}
	t.Run("nss rsa-2048", func(t *testing.T) {
		n := platformtest.NSSDir(t, "")
		k := killed{home: n.Home, store: "nss:default", algorithm: platform.RSA2048, rounds: rounds / 4, within: 60 * time.Millisecond}
		k.run(t)
		intact(t, n.Dir)
	})
	t.Run("nss new database", func(t *testing.T) {
		for range rounds / 4 {
			k := killed{home: t.TempDir(), store: "nss:default", algorithm: platform.P256, rounds: 1, within: 60 * time.Millisecond}
			k.run(t)
		}
	})
	t.Run("softhsm", func(t *testing.T) { killSoftHSM(t, rounds/4) })
	t.Run("tpm", func(t *testing.T) {
		token := platformtest.StartTPM(t)
		k := killed{home: t.TempDir(), store: "pkcs11:" + token.Module.TokenLabel, pin: token.PIN, module: token.Module.Path,
			label: token.Module.TokenLabel, algorithm: platform.P256, rounds: rounds / 4, within: 60 * time.Millisecond}
		k.run(t)
	})
	t.Run("file", func(t *testing.T) {
		k := killed{home: t.TempDir(), store: "file", algorithm: platform.P256, rounds: rounds / 2, within: 4 * time.Millisecond}
		k.run(t)
	})
}

// killSoftHSM takes a fresh token each round: SoftHSM 2.6.1 rewrites its token
// file at every login, in place, and killed there it loses the whole token.
// Nothing outside SoftHSM can prevent that; such rounds are counted and say
// nothing of us.
func killSoftHSM(t *testing.T, rounds int) {
	t.Helper()
	lost := 0
	for range rounds {
		token := platformtest.SoftHSM(t)
		k := killed{home: t.TempDir(), store: "pkcs11:" + token.Module.TokenLabel, pin: token.PIN, module: token.Module.Path,
			label: token.Module.TokenLabel, algorithm: platform.P256, rounds: 1, within: 30 * time.Millisecond}
		id := platformtest.NewID(t)
		made := k.round(t, id)
		if _, err := platform.Stores(t.Context(), k.options()); errors.Is(err, platform.ErrNotFound) {
			lost++
			continue
		}
		k.again(t, id, made)
	}
	t.Logf("%d rounds, in %d SoftHSM lost the token", rounds, lost)
	if lost > rounds/2 {
		t.Errorf("%d of %d rounds tell nothing", lost, rounds)
	}
}

func (k killed) run(t *testing.T) {
	t.Helper()
	reported, left := 0, 0
	for range k.rounds {
		id := platformtest.NewID(t)
		made := k.round(t, id)
		if made {
			reported++
		}
		if k.again(t, id, made) {
			left++
		}
	}
	t.Logf("%d rounds: %d reported, %d whole after the kill", k.rounds, reported, left)
}

// again is the second attempt; it says whether the first had made the key.
func (k killed) again(t *testing.T, id platform.KeyID, made bool) bool {
	t.Helper()
	store := find(t, k.options(), k.store)
	_, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: k.algorithm, Sign: true})
	exists := errors.Is(err, platform.ErrExists)
	if err != nil && !exists {
		t.Fatalf("Create after the kill: %v", err)
	}
	if made && !exists {
		t.Error("a key that was reported is gone")
	}
	checkOneKey(t, find(t, k.options(), k.store), id)
	return exists
}

// checkOneKey wants exactly one key of that name, whole, that signs.
func checkOneKey(t *testing.T, store platform.Store, id platform.KeyID) {
	t.Helper()
	key, err := store.Open(t.Context(), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	digest := sha256.Sum256([]byte("after the kill"))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	good := false
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(public, digest[:], signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	}
	if !good {
		t.Error("the signature does not verify")
	}
	if store.Info().Name == "file" {
		return
	}
	private, public, mended, err := platform.KeyObjects(t.Context(), store, id)
	if err != nil || private != 1 || public != 1 || !mended {
		t.Errorf("%d private and %d public objects, IDs right: %v, %v", private, public, mended, err)
	}
}

// intact lets SQLite itself check both files.
func intact(t *testing.T, dir string) {
	t.Helper()
	platformtest.NeedPrograms(t, "sqlite3")
	for _, name := range []string{"cert9.db", "key4.db"} {
		out, err := exec.CommandContext(t.Context(), "sqlite3", filepath.Join(dir, name), "pragma integrity_check").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "ok" {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}
