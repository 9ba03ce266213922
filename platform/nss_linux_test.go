//go:build cgo

package platform_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func nssAt(t *testing.T, home, password string) platform.Store {
	t.Helper()
	return find(t, platform.StoreOptions{Home: home,
		PIN: func(context.Context, string, bool) (string, error) { return password, nil }}, "nss:default")
}

func create(t *testing.T, s platform.Store, id platform.KeyID) platform.Key {
	t.Helper()
	key, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true, Decrypt: true})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return key
}

// TestNSSMended: whatever a crash can leave of a key ends, after one more
// Create, as one usable key, and a usable one is kept.
func TestNSSMended(t *testing.T) {
	for how, kept := range map[string]bool{
		"no private": false, "no public": false, "both IDs": true, "private ID": false, "public ID": true,
	} {
		t.Run(how, func(t *testing.T) {
			store, id := nssAt(t, platformtest.NSSDir(t, "").Home, ""), platformtest.NewID(t)
			before := create(t, store, id)
			if err := platform.Spoil(t.Context(), store, id, how); err != nil {
				t.Fatal(err)
			}
			infos, err := store.Keys(t.Context())
			if err != nil || !kept && !slices.ContainsFunc(infos, func(i platform.KeyInfo) bool { return i.ID == id && i.Public == nil }) {
				t.Errorf("Keys on half a key: %+v, %v", infos, err)
			}
			_, err = store.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true})
			if kept != errors.Is(err, platform.ErrExists) || !kept && err != nil {
				t.Errorf("Create: %v, key kept %v", err, kept)
			}
			checkOneKey(t, store, id)
			after, err := store.Open(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if same := equal(before, after); same != kept {
				t.Errorf("the same key afterwards: %v, want %v", same, kept)
			}
		})
	}
}

// TestNSSMendedByInstall: a key whose making was cut off before its IDs were
// set, and which was then opened and not created again, is linked all the same,
// also where its private half shows only after the password.
func TestNSSMendedByInstall(t *testing.T) {
	for _, password := range []string{"", "correct horse"} {
		n, id := platformtest.NSSDir(t, password), platformtest.NewID(t)
		store := nssAt(t, n.Home, password)
		key := create(t, store, id)
		if err := platform.Spoil(t.Context(), store, id, "both IDs"); err != nil {
			t.Fatal(err)
		}
		chain := platformtest.NewAuthority(t).Chain(t, key.Public(), 0)
		if password != "" {
			nobody := find(t, platform.StoreOptions{Home: n.Home}, "nss:default")
			if err := nobody.Install(t.Context(), id, chain); !errors.Is(err, platform.ErrLocked) {
				t.Errorf("Install without the password: %v, want ErrLocked", err)
			}
		}
		if err := nssAt(t, n.Home, password).Install(t.Context(), id, chain); err != nil {
			t.Errorf("Install: %v", err)
		}
		checkOneKey(t, store, id)
	}
}

// TestNSSOneOfSeveral: of several keys with one name the certified one stays.
func TestNSSOneOfSeveral(t *testing.T) {
	for _, certified := range []bool{false, true} {
		store, id := nssAt(t, platformtest.NSSDir(t, "").Home, ""), platformtest.NewID(t)
		key := create(t, store, id)
		if certified {
			if err := store.Install(t.Context(), id, platformtest.NewAuthority(t).Chain(t, key.Public(), 0)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := platform.PlantPair(t.Context(), store, id); err != nil {
				t.Fatal(err)
			}
		}
		_, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true})
		if !errors.Is(err, platform.ErrExists) {
			t.Errorf("Create: %v, want ErrExists", err)
		}
		checkOneKey(t, store, id)
		if _, err := store.Find(t.Context(), id); certified && err != nil {
			t.Errorf("the certified key was not the one kept: %v", err)
		}
	}
}

// TestNSSLostPublicHalf: a certified key whose public object another program
// removed still opens, and is never cleared away.
func TestNSSLostPublicHalf(t *testing.T) {
	store, id := nssAt(t, platformtest.NSSDir(t, "").Home, ""), platformtest.NewID(t)
	key := create(t, store, id)
	chain := platformtest.NewAuthority(t).Chain(t, key.Public(), 0)
	if err := store.Install(t.Context(), id, chain); err != nil {
		t.Fatal(err)
	}
	if err := platform.Spoil(t.Context(), store, id, "no public"); err != nil {
		t.Fatal(err)
	}
	_, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true})
	if !errors.Is(err, platform.ErrExists) {
		t.Errorf("Create: %v, want ErrExists", err)
	}
	if err := store.Delete(t.Context(), id); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Delete: %v, want ErrDenied", err)
	}
	if found, err := store.Find(t.Context(), id); err != nil || len(found) != len(chain) {
		t.Errorf("Find: %d certificates, %v", len(found), err)
	}
	again, err := store.Open(t.Context(), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if _, err := again.(platform.Agreer).ECDH(peer(t)); err != nil {
		t.Errorf("ECDH: %v", err)
	}
}

// TestNSSBadCertificate: one certificate that nobody can parse hides no other.
func TestNSSBadCertificate(t *testing.T) {
	store, id := nssAt(t, platformtest.NSSDir(t, "").Home, ""), platformtest.NewID(t)
	key := create(t, store, id)
	good := platformtest.NewAuthority(t).Chain(t, key.Public(), 0)
	bad, err := asn1.Marshal(struct{ A, B int }{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := platform.PlantBadCertificate(t.Context(), store, bad); err != nil {
		t.Fatalf("plant: %v", err)
	}
	if err := store.Install(t.Context(), id, good); err != nil {
		t.Errorf("Install beside a bad certificate: %v", err)
	}
	if found, err := store.Find(t.Context(), id); err != nil || len(found) != 3 {
		t.Errorf("Find beside a bad certificate: %d, %v", len(found), err)
	}
	if infos, err := store.Keys(t.Context()); err != nil || len(infos) != 1 || !infos[0].Certified {
		t.Errorf("Keys beside a bad certificate: %+v, %v", infos, err)
	}
}

// TestNSSNew: looking makes nothing; the first key makes folder and database,
// readable by the user only.
func TestNSSNew(t *testing.T) {
	home := t.TempDir()
	store, id := nssAt(t, home, ""), platformtest.NewID(t)
	if infos, err := store.Keys(t.Context()); err != nil || len(infos) != 0 {
		t.Errorf("Keys: %v, %v", infos, err)
	}
	if _, err := store.Open(t.Context(), id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Open: %v", err)
	}
	if err := store.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := os.Stat(filepath.Join(home, ".pki")); err == nil {
		t.Error("looking made a folder")
	}
	create(t, store, id)
	checkOneKey(t, store, id)
	for path, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "key4.db": 0o600, "cert9.db": 0o600} {
		info, err := os.Stat(filepath.Join(home, ".pki", "nssdb", path))
		if err != nil || info.Mode() != want {
			t.Errorf("%q: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestNSSWithoutPIN: what needs no password asks for none, and what needs one
// says that the store is locked.
func TestNSSWithoutPIN(t *testing.T) {
	n, id := platformtest.NSSDir(t, "correct horse"), platformtest.NewID(t)
	key := create(t, nssAt(t, n.Home, n.Password), id)
	chain := platformtest.NewAuthority(t).Chain(t, key.Public(), 0)
	for name, ask := range map[string]platform.PINFunc{
		"nobody to ask": nil,
		"refused":       func(context.Context, string, bool) (string, error) { return "", platform.ErrLocked },
		"closed":        func(context.Context, string, bool) (string, error) { return "", errors.New("window closed") },
	} {
		t.Run(name, func(t *testing.T) {
			store := find(t, platform.StoreOptions{Home: n.Home, PIN: ask}, "nss:default")
			if _, err := store.Open(t.Context(), id); !errors.Is(err, platform.ErrLocked) {
				t.Errorf("Open: %v, want ErrLocked", err)
			}
			_, err := store.Create(t.Context(), platformtest.NewID(t), platform.KeySpec{Algorithm: platform.P256})
			if !errors.Is(err, platform.ErrLocked) {
				t.Errorf("Create: %v, want ErrLocked", err)
			}
			if err := store.Install(t.Context(), id, chain); err != nil {
				t.Errorf("Install needs no password: %v", err)
			}
			if found, err := store.Find(t.Context(), id); err != nil || len(found) != 3 {
				t.Errorf("Find needs no password: %d, %v", len(found), err)
			}
			infos, err := store.Keys(t.Context())
			if err != nil || len(infos) != 1 || infos[0].Public == nil || !infos[0].Certified {
				t.Errorf("Keys needs no password: %+v, %v", infos, err)
			}
			if err := store.Delete(t.Context(), id); err == nil {
				t.Error("Delete went through without the password")
			}
		})
	}
}

// TestNSSWrongPIN: two wrong passwords end an operation, and what was refused
// once is not tried again.
func TestNSSWrongPIN(t *testing.T) {
	n, id := platformtest.NSSDir(t, "correct horse"), platformtest.NewID(t)
	create(t, nssAt(t, n.Home, n.Password), id)
	answers := []string{"wrong", "also wrong", "wrong", "correct horse"}
	var asked []bool
	store := find(t, platform.StoreOptions{Home: n.Home, PIN: func(_ context.Context, _ string, retry bool) (string, error) {
		asked = append(asked, retry)
		return answers[len(asked)-1], nil
	}}, "nss:default")
	for i, want := range []struct {
		asked int
		err   error
	}{{2, platform.ErrLocked}, {3, platform.ErrLocked}, {4, nil}, {4, nil}} {
		_, err := store.Open(t.Context(), id)
		if !errors.Is(err, want.err) || len(asked) != want.asked {
			t.Errorf("attempt %d: %v after %d questions, want %v after %d", i, err, len(asked), want.err, want.asked)
		}
	}
	if !slices.Equal(asked, []bool{false, true, false, false}) {
		t.Errorf("retry was said as %v", asked)
	}
}

// TestSeveralNSSAtOnce: one process uses several databases, from several
// goroutines, and each finds its own keys.
func TestSeveralNSSAtOnce(t *testing.T) {
	passwords := []string{"", "correct horse", "battery staple"}
	var wg sync.WaitGroup
	for _, password := range passwords {
		home := platformtest.NSSDir(t, password).Home
		for range 2 {
			wg.Go(func() {
				store, err := openDefault(home, password)
				for range 5 {
					if err == nil {
						err = roundTrip(context.Background(), store, platformtest.NewID(t))
					}
				}
				if err != nil {
					t.Errorf("database with password %q: %v", password, err)
				}
			})
		}
	}
	wg.Wait()
}

func openDefault(home, password string) (platform.Store, error) {
	list, err := platform.Stores(context.Background(), platform.StoreOptions{Home: home,
		PIN: func(context.Context, string, bool) (string, error) { return password, nil }})
	for _, s := range list {
		if s.Info().Name == "nss:default" {
			return s, err
		}
	}
	return nil, errors.Join(err, platform.ErrNotFound)
}

// TestNSSBusy: a database that another program holds is a passing trouble and
// no verdict about keys.
func TestNSSBusy(t *testing.T) {
	platformtest.NeedPrograms(t, "sqlite3")
	n, id := platformtest.NSSDir(t, ""), platformtest.NewID(t)
	store := nssAt(t, n.Home, "")
	create(t, store, id)
	holder := exec.CommandContext(t.Context(), "sqlite3", filepath.Join(n.Dir, "key4.db"))
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "BEGIN EXCLUSIVE;\nSELECT 'held';\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, createErr := store.Create(t.Context(), platformtest.NewID(t), platform.KeySpec{Algorithm: platform.P256})
	_, openErr := store.Open(t.Context(), id)
	t.Logf("after %v: %v; %v", time.Since(began), createErr, openErr)
	for _, err := range []error{createErr, openErr} {
		if err == nil || errors.Is(err, platform.ErrNotFound) || errors.Is(err, platform.ErrLocked) || errors.Is(err, platform.ErrExists) {
			t.Errorf("while the database is held: %v", err)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err != nil {
		t.Fatal(err)
	}
	checkOneKey(t, store, id)
}

func equal(a, b platform.Key) bool {
	key, ok := a.Public().(*ecdsa.PublicKey)
	return ok && key.Equal(b.Public())
}

func peer(t *testing.T) *ecdh.PublicKey {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.PublicKey()
}

// roundTrip makes a key, finds it again and lets it sign.
func roundTrip(ctx context.Context, store platform.Store, id platform.KeyID) error {
	if _, err := store.Create(ctx, id, platform.KeySpec{Algorithm: platform.P256, Sign: true}); err != nil {
		return err
	}
	key, err := store.Open(ctx, id)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(id))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(public, digest[:], signature) {
		return errors.New("the signature does not verify")
	}
	return nil
}
