//go:build cgo

package platform_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestStoresInOrder(t *testing.T) {
	token, n := platformtest.SoftHSM(t), platformtest.NSSDir(t, "")
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: n.Home, Modules: []platform.Module{token.Module}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, s.Info().Name)
	}
	if want := []string{"pkcs11:smime-test", "nss:default", "file"}; !slices.Equal(got, want) {
		t.Errorf("stores %v, want %v", got, want)
	}
}

// TestStoresOnlyToken: without a label the only token is taken.
func TestStoresOnlyToken(t *testing.T) {
	token := platformtest.SoftHSM(t)
	find(t, platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{{Path: token.Module.Path}}}, "pkcs11:smime-test")
}

// TestStoresUnusable: a module that cannot be used is in the error, and the
// other stores are there all the same.
func TestStoresUnusable(t *testing.T) {
	token := platformtest.SoftHSM(t)
	text := filepath.Join(t.TempDir(), "module.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		module platform.Module
		want   error
	}{
		"missing module": {platform.Module{Path: "/nowhere/module.so"}, platform.ErrNotFound},
		"no module":      {platform.Module{Path: text}, platform.ErrNotFound},
		"relative path":  {platform.Module{Path: "module.so"}, platform.ErrDenied},
		"missing token":  {platform.Module{Path: token.Module.Path, TokenLabel: "another"}, platform.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{c.module, token.Module}})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.module.Path) {
				t.Errorf("Stores: %v, want %v", err, c.want)
			}
			if len(list) < 2 || list[0].Info().Name != "pkcs11:smime-test" || list[len(list)-1].Info().Name != "file" {
				t.Errorf("%d stores beside the unusable one", len(list))
			}
		})
	}
}

// TestTokenPulledOut: a token that is gone is locked, and no key is missing.
func TestTokenPulledOut(t *testing.T) {
	token := platformtest.SoftHSM(t)
	store := find(t, platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{token.Module}, PIN: token.AskPIN(t)}, "pkcs11:smime-test")
	key := create(t, store, platformtest.NewID(t))
	empty := filepath.Join(t.TempDir(), "softhsm2.conf")
	if err := os.WriteFile(empty, []byte("directories.tokendir = "+t.TempDir()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", empty)
	if _, err := store.Open(t.Context(), key.ID()); !errors.Is(err, platform.ErrLocked) || errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Open: %v, want ErrLocked", err)
	}
	if _, err := store.Keys(t.Context()); !errors.Is(err, platform.ErrLocked) {
		t.Errorf("Keys: %v, want ErrLocked", err)
	}
}

// TestTokenWrongPIN: SoftHSM refuses, we stop after two.
func TestTokenWrongPIN(t *testing.T) {
	token, asked := platformtest.SoftHSM(t), 0
	store := find(t, platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{token.Module},
		PIN: func(context.Context, string, bool) (string, error) { asked++; return strings.Repeat("9", 5+asked), nil }}, "pkcs11:smime-test")
	_, err := store.Create(t.Context(), platformtest.NewID(t), platform.KeySpec{Algorithm: platform.P256})
	if !errors.Is(err, platform.ErrLocked) || asked != 2 {
		t.Errorf("Create: %v after %d questions", err, asked)
	}
}
