package helper_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// TestWindowsStoreProved brings a credential from request to proof in the real
// store of this user, and takes it away again.
func TestWindowsStoreProved(t *testing.T) {
	const name = "windows"
	w := newWorld(t)
	var store platform.Store
	w.session.Stores = func(ctx context.Context, _ []platform.Module) ([]platform.Store, error) {
		list, err := platform.Stores(ctx, platform.StoreOptions{})
		if i := slices.IndexFunc(list, func(s platform.Store) bool { return s.Info().Name == name }); i >= 0 {
			store = list[i]
		}
		return list, err
	}
	request := wanted("rsa-3072")
	request.Store = name
	made, err := w.session.MakeRequest(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if made.Protection != string(platform.NonExportable) {
		t.Errorf("the key is %q", made.Protection)
	}
	chain := w.issue(t, made.CSR, nil)
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's own is over
		if err := store.Remove(ctx, leaf); err != nil {
			t.Error(err)
		}
		if err := store.Delete(ctx, platform.KeyID(id)); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := w.session.Install(t.Context(), enroll.InstallWanted{ID: id, Store: name, Chain: chain, Trust: w.anchors()}); err != nil {
			t.Fatal(err)
		}
	}
	proof := w.proof(chain)
	proof.Store = name
	p, err := w.session.Prove(t.Context(), proof)
	if err != nil || !p.OK() || !p.Signs || !p.Decrypts || !p.ChainOK || p.Protection != string(platform.NonExportable) {
		t.Errorf("proof %+v, %v", p, err)
	}
	v, err := w.session.Inventory(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(v.Keys, func(k enroll.KeyFound) bool {
		return k.ID == id && k.Store == name && len(k.Chain) > 1 && bytes.Equal(k.Chain[0], chain[0])
	}) {
		t.Errorf("the inventory does not list the key: %+v", v.Keys)
	}
	wantError(t, w.session.Discard(t.Context(), name, id, nil), enroll.Waiting, enroll.CodeStoreDenied)
}
