package platform_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"os"
	"slices"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/internal/wincrypt"
	"smime-agent/platform/platformtest"
)

// findStore opens the stores anew, as the helper does, and picks one.
func findStore(t *testing.T, name string) (platform.Store, bool) {
	t.Helper()
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: platform.TempDir(t)})
	if err != nil {
		t.Fatalf("Stores: %v", err)
	}
	i := slices.IndexFunc(list, func(s platform.Store) bool { return s.Info().Name == name })
	if i < 0 {
		return nil, false
	}
	return list[i], true
}

func windowsStore(t *testing.T) platform.Store {
	t.Helper()
	s, ok := findStore(t, "windows")
	if !ok {
		t.Fatal("there is no store windows")
	}
	return s
}

// makeWindowsKey makes a key that goes with the test.
func makeWindowsKey(t *testing.T, s platform.Store, id platform.KeyID) platform.Key {
	t.Helper()
	k, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048, Sign: true, Decrypt: true})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() { forget(t, s, id) })
	return k
}

// forget removes a key with its certificates.
func forget(t *testing.T, s platform.Store, id platform.KeyID) {
	t.Helper()
	ctx := t.Context()
	if ctx.Err() != nil { // a cleanup
		ctx = context.Background()
	}
	for {
		chain, err := s.Find(ctx, id)
		if errors.Is(err, platform.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatalf("Find: %v", err)
		}
		if err := s.Remove(ctx, chain[0]); err != nil {
			t.Fatalf("Remove: %v", err)
		}
	}
	if err := s.Delete(ctx, id); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

// TestWindowsStore runs on the real store of this user. Which kinds of keys it
// makes is the store's word: RSA only under Wine, where CryptoAPI alone keeps keys.
func TestWindowsStore(t *testing.T) {
	s := windowsStore(t)
	t.Logf("the store says: %+v", s.Info())
	if s.Info().Protection != platform.NonExportable {
		t.Errorf("it claims %s", s.Info().Protection)
	}
	cng := slices.Contains(s.Info().Algorithms, platform.P256)
	platformtest.TestStore(t, windowsStore, platformtest.StoreTests{PSS: cng, OAEP: cng, Agree: cng, Algorithms: shorter(s), Sealed: sealedCAPI(cng)})
}

// TestWindowsTPM needs a TPM.
func TestWindowsTPM(t *testing.T) {
	s, ok := findStore(t, "windows:tpm")
	if !ok {
		t.Skip("SKIP: there is no usable TPM 2.0; Wine has none")
	}
	t.Logf("the store says: %+v", s.Info())
	platformtest.TestStore(t, func(t *testing.T) platform.Store {
		s, _ := findStore(t, "windows:tpm")
		return s
	}, platformtest.StoreTests{Algorithms: shorter(s)})
}

func TestWindowsFileStore(t *testing.T) {
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: platform.TempDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	last := list[len(list)-1]
	if last.Info().Name != "file" {
		t.Errorf("the last store is %s", last.Info().Name)
	}
	platformtest.TestStore(t, func(*testing.T) platform.Store { return last },
		platformtest.StoreTests{PSS: true, OAEP: true, Agree: true, Algorithms: shorter(last)})
}

// shorter leaves out the slowest kind where time is short.
func shorter(s platform.Store) []platform.KeyAlgorithm {
	return slices.DeleteFunc(s.Info().Algorithms, func(a platform.KeyAlgorithm) bool {
		return testing.Short() && a == platform.RSA4096
	})
}

// sealedCAPI asks the container itself, past our store.
func sealedCAPI(cng bool) func(*testing.T, platform.KeyID) {
	if cng {
		return nil // Create itself has tried the export
	}
	return func(t *testing.T, id platform.KeyID) {
		t.Helper()
		k, err := wincrypt.OpenContainer(string(id))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if exportable, err := k.Exportable(); err != nil || exportable {
			t.Errorf("exportable: %v, %v", exportable, err)
		}
	}
}

func TestWindowsModules(t *testing.T) {
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: platform.TempDir(t), Modules: []platform.Module{{Path: `C:\card.dll`}}})
	if !errors.Is(err, platform.ErrUnsupported) || len(list) < 2 {
		t.Errorf("%d stores, %v; want the others, and ErrUnsupported", len(list), err)
	}
}

func TestWindowsNames(t *testing.T) {
	s := windowsStore(t)
	for _, id := range []platform.KeyID{"", "..", `a\b`, "a/b", "a\x00b", "a b"} {
		if _, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048}); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("Create %q: %v", id, err)
		}
		if _, err := s.Open(t.Context(), id); err == nil {
			t.Errorf("Open %q went through", id)
		}
	}
}

// TestWindowsTrust: no warning of Windows may come up, and nothing is added.
func TestWindowsTrust(t *testing.T) {
	ca := platformtest.NewAuthority(t)
	truster, ok := windowsStore(t).(platform.Truster)
	if !ok {
		t.Fatal("the store does not say that it cannot")
	}
	if err := truster.Trust(t.Context(), ca.Root); !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("Trust: %v, want ErrUnsupported", err)
	}
	for _, f := range entries(t, wincrypt.Root) {
		if string(f.DER) == string(ca.Root.Raw) {
			t.Error("the anchor is in Root")
		}
	}
}

// TestWindowsMachineTrust: a root becomes trusted on the machine for e-mail only,
// once, and what an administrator put there stays as it is. It needs an
// administrator, as the service is one.
func TestWindowsMachineTrust(t *testing.T) {
	ca, administrators := platformtest.NewAuthority(t), platformtest.NewAuthority(t)
	machine, err := wincrypt.OpenMachineStore(wincrypt.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(machine.AddIssuer(administrators.Root.Raw), machine.Close()); err != nil {
		t.Skipf("SKIP: this account may not change the machine's roots: %v", err)
	}
	t.Cleanup(func() {
		for _, c := range []*x509.Certificate{ca.Root, administrators.Root} {
			if s, err := wincrypt.OpenMachineStore(wincrypt.Root); err == nil {
				_ = s.Remove(c.Raw)
				_ = s.Close()
			}
		}
	})
	for i, want := range []bool{true, false} {
		if added, err := platform.TrustOnMachine(ca.Root); err != nil || added != want {
			t.Errorf("time %d: added %v, %v", i+1, added, err)
		}
	}
	if added, err := platform.TrustOnMachine(administrators.Root); err != nil || added {
		t.Errorf("the administrator's: added %v, %v", added, err)
	}
	ours, found := machineRoot(t, ca.Root)
	var usages []asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(ours.Usage, &usages); !found || err != nil || len(usages) == 0 || !usages[0].Equal(emailProtection) {
		t.Errorf("found %v, restricted to %v, %v", found, usages, err)
	}
	if theirs, found := machineRoot(t, administrators.Root); !found || len(theirs.Usage) > 0 {
		t.Errorf("the administrator's: found %v, restricted to %x", found, theirs.Usage)
	}
}

var emailProtection = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4} // RFC 5280 §4.2.1.12

func machineRoot(t *testing.T, c *x509.Certificate) (wincrypt.Filed, bool) {
	t.Helper()
	s, err := wincrypt.OpenMachineStore(wincrypt.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if string(f.DER) == string(c.Raw) {
			return f, true
		}
	}
	return wincrypt.Filed{}, false
}

func entries(t *testing.T, store string) []wincrypt.Filed {
	t.Helper()
	cs, err := wincrypt.OpenCertStore(store)
	if err != nil {
		t.Fatal(err)
	}
	defer cs.Close()
	list, err := cs.List()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func entryFor(t *testing.T, store string, c *x509.Certificate) (wincrypt.Filed, bool) {
	t.Helper()
	for _, f := range entries(t, store) {
		if string(f.DER) == string(c.Raw) {
			return f, true
		}
	}
	return wincrypt.Filed{}, false
}

// TestWindowsFiling looks past our store at what mail programs will see.
func TestWindowsFiling(t *testing.T) {
	s, id, ca := windowsStore(t), platformtest.NewID(t), platformtest.NewAuthority(t)
	chain := ca.Chain(t, makeWindowsKey(t, s, id).Public(), 0)
	if err := s.Install(t.Context(), id, chain); err != nil {
		t.Fatal(err)
	}
	leaf, ok := entryFor(t, wincrypt.My, chain[0])
	if !ok || leaf.Key.Container != string(id) || leaf.Key.Provider == "" || leaf.Archived {
		t.Errorf("the leaf: %v, key %+v", ok, leaf.Key)
	}
	if want := "S/MIME " + platformtest.Mailbox + " " + chain[0].NotBefore.Format("2006-01-02"); leaf.Name != want {
		t.Errorf("it is called %q, want %q", leaf.Name, want)
	}
	for _, issuer := range chain[1:] {
		if f, ok := entryFor(t, wincrypt.CA, issuer); !ok || f.Key.Container != "" {
			t.Errorf("issuer %s: %v, key %q", issuer.Subject, ok, f.Key.Container)
		}
	}
	if _, ok := entryFor(t, wincrypt.Root, chain[2]); ok {
		t.Error("the root became trusted")
	}
}

// TestWindowsGenerations: after a renewal the old key still decrypts and its
// certificate is still found.
func TestWindowsGenerations(t *testing.T) {
	s, ca := windowsStore(t), platformtest.NewAuthority(t)
	var ids []platform.KeyID
	for generation := range 3 {
		id := platformtest.NewID(t)
		ids = append(ids, id)
		if err := s.Install(t.Context(), id, ca.Chain(t, makeWindowsKey(t, s, id).Public(), generation)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		chain, err := windowsStore(t).Find(t.Context(), id)
		if err != nil {
			t.Fatalf("Find: %v", err)
		}
		decrypts(t, windowsStore(t), id, chain[0])
		if err := s.Delete(t.Context(), id); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("Delete of a key with a certificate: %v", err)
		}
	}
}

func decrypts(t *testing.T, s platform.Store, id platform.KeyID, leaf *x509.Certificate) {
	t.Helper()
	key, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer key.Close()
	public, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok {
		t.Fatalf("a certificate for %T", leaf.PublicKey)
	}
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, public, []byte("old mail")) //nolint:staticcheck // what mail programs still send
	if err != nil {
		t.Fatal(err)
	}
	decrypter, ok := key.(crypto.Decrypter)
	if !ok {
		t.Fatalf("%T is no crypto.Decrypter", key)
	}
	if plain, err := decrypter.Decrypt(nil, sealed, nil); err != nil || string(plain) != "old mail" {
		t.Errorf("Decrypt: %q, %v", plain, err)
	}
}

// TestUnderWineRSAOnly: Wine must not talk us into a TPM or into CNG. A variable
// of the run says that it is Wine.
func TestUnderWineRSAOnly(t *testing.T) {
	if os.Getenv("SMIME_AGENT_WINE") == "" {
		t.Skip("SKIP: not under Wine")
	}
	want := []platform.KeyAlgorithm{platform.RSA2048, platform.RSA3072, platform.RSA4096}
	if got := windowsStore(t).Info().Algorithms; !slices.Equal(got, want) {
		t.Errorf("the store makes %v; Wine's CNG keeps no keys, so it should be %v", got, want)
	}
	if _, ok := findStore(t, "windows:tpm"); ok {
		t.Error("the store claims a TPM; Wine opens the TPM's provider, as it opens any name")
	}
}

// TestWindowsKinds: a key of each kind is listed and goes without a trace, and
// one that was made for signing only does nothing else.
func TestWindowsKinds(t *testing.T) {
	for _, name := range []string{"windows", "windows:tpm"} {
		s, ok := findStore(t, name)
		if !ok {
			continue
		}
		for _, kind := range shorter(s) {
			t.Run(name+" "+string(kind), func(t *testing.T) { testKind(t, s, kind) })
		}
	}
}

func testKind(t *testing.T, s platform.Store, kind platform.KeyAlgorithm) {
	t.Helper()
	id := platformtest.NewID(t)
	key, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: kind, Sign: true})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	defer forget(t, s, id)
	if info, ok := listedAs(t, s, id); !ok || info.Public == nil {
		t.Errorf("Keys: %+v, %v", info, ok)
	}
	if agreer, ok := key.(platform.Agreer); ok {
		other, err := ecdh.P256().GenerateKey(rand.Reader)
		if kind == platform.P384 {
			other, err = ecdh.P384().GenerateKey(rand.Reader)
		}
		if err != nil {
			t.Fatal(err)
		}
		if secret, err := agreer.ECDH(other.PublicKey()); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("ECDH with a key for signing: %x, %v", secret, err)
		}
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if info, ok := listedAs(t, s, id); ok {
		t.Errorf("Keys after Delete: %+v", info)
	}
}
