//go:build cgo

package helper_test

import (
	"context"
	"slices"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// realStore is a place for keys that other programs use too.
type realStore struct {
	// title names the test; name is the store's.
	title, name string
	options     func(t *testing.T) platform.StoreOptions
	// pin is what the person types.
	pin string
}

func realStores() []realStore {
	nss := func(password string) func(t *testing.T) platform.StoreOptions {
		return func(t *testing.T) platform.StoreOptions {
			return platform.StoreOptions{Home: platformtest.NSSDir(t, password).Home}
		}
	}
	return []realStore{
		{"file", "file", func(t *testing.T) platform.StoreOptions { return platform.StoreOptions{Home: t.TempDir()} }, ""},
		{"NSS", "nss:default", nss(""), ""},
		{"NSS with password", "nss:default", nss("open sesame"), "open sesame"},
		{"SoftHSM", "pkcs11:smime-test", softHSM, "648219"},
	}
}

func softHSM(t *testing.T) platform.StoreOptions {
	return platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{platformtest.SoftHSM(t).Module}}
}

// TestRealStores brings a credential of each kind from request to proof in the
// stores of this system.
func TestRealStores(t *testing.T) {
	for _, r := range realStores() {
		for _, algorithm := range []string{"rsa-2048", "rsa-3072", "p-256", "p-384"} {
			t.Run(r.title+" "+algorithm, func(t *testing.T) { realLife(t, r, algorithm) })
		}
	}
}

func realLife(t *testing.T, r realStore, algorithm string) {
	w := newWorld(t)
	options := r.options(t)
	options.PIN = w.session.PIN
	w.session.Stores = func(ctx context.Context, _ []platform.Module) ([]platform.Store, error) {
		return platform.Stores(ctx, options)
	}
	typed := func() { // the person types the PIN once per task
		if r.pin != "" {
			w.person.pins = []string{r.pin}
		}
	}
	v, err := w.session.Inventory(t.Context(), nil)
	if err != nil || len(v.Failures) > 0 || len(v.Keys) > 0 {
		t.Fatalf("inventory %+v, %v", v, err)
	}
	i := slices.IndexFunc(v.Stores, func(f enroll.StoreFound) bool { return f.Name == r.name })
	if i < 0 || !slices.Contains(v.Stores[i].Algorithms, algorithm) {
		t.Fatalf("stores %+v", v.Stores)
	}
	request := wanted(algorithm)
	request.Store = r.name
	typed()
	made, err := w.session.MakeRequest(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	chain := w.issue(t, made.CSR, nil)
	typed()
	if err := w.session.Install(t.Context(), enroll.InstallWanted{ID: id, Store: r.name, Chain: chain, Trust: w.anchors()}); err != nil {
		t.Fatal(err)
	}
	proof := w.proof(chain)
	proof.Store = r.name
	typed()
	p, err := w.session.Prove(t.Context(), proof)
	if err != nil || !p.OK() || !p.Signs || !p.Decrypts || !p.ChainOK {
		t.Errorf("proof %+v, %v", p, err)
	}
	w.person.pins = nil
	v, err = w.session.Inventory(t.Context(), nil)
	if err != nil || len(v.Keys) != 1 || v.Keys[0].ID != id || len(v.Keys[0].PublicKey) == 0 ||
		len(v.Keys[0].Chain) < 2 || !slices.Equal(v.Keys[0].Chain[0], chain[0]) {
		t.Errorf("inventory %+v, %v", v, err)
	}
	typed()
	wantError(t, w.session.Discard(t.Context(), r.name, id, nil), enroll.Waiting, enroll.CodeStoreDenied)
	if r.pin != "" {
		w.person.pins = nil // the person cancels
		_, err = w.session.Prove(t.Context(), proof)
		wantError(t, err, enroll.Waiting, enroll.CodeStoreLocked)
	}
}
