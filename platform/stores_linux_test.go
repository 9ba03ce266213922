//go:build cgo

package platform_test

import (
	"context"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// find opens the stores anew, as the helper does, and picks one.
func find(t *testing.T, o platform.StoreOptions, name string) platform.Store {
	t.Helper()
	list, err := platform.Stores(t.Context(), o)
	if err != nil {
		t.Fatalf("Stores: %v", err)
	}
	for _, s := range list {
		if s.Info().Name == name {
			return s
		}
	}
	t.Fatalf("no store %s among %d", name, len(list))
	return nil
}

// all leaves out the slowest kind where time is short.
func kinds(t *testing.T) []platform.KeyAlgorithm {
	t.Helper()
	if testing.Short() {
		return []platform.KeyAlgorithm{platform.P256, platform.RSA2048}
	}
	return nil
}

func TestNSSStore(t *testing.T) {
	for name, password := range map[string]string{"empty password": "", "password": "correct horse"} {
		t.Run(name, func(t *testing.T) {
			n := platformtest.NSSDir(t, password)
			o := platform.StoreOptions{Home: n.Home, PIN: func(_ context.Context, store string, retry bool) (string, error) {
				if password == "" || retry {
					t.Errorf("store %s asked for a PIN, again: %v", store, retry)
				}
				return password, nil
			}}
			platformtest.TestStore(t, func(t *testing.T) platform.Store { return find(t, o, "nss:default") },
				platformtest.StoreTests{PSS: true, OAEP: true, Agree: true, Algorithms: kinds(t)})
		})
	}
}

func TestSoftHSMStore(t *testing.T) {
	token := platformtest.SoftHSM(t)
	o := platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{token.Module}, PIN: token.AskPIN(t)}
	store := find(t, o, "pkcs11:"+token.Module.TokenLabel)
	if got := store.Info().Protection; got != platform.Software {
		t.Errorf("SoftHSM claims %s", got)
	}
	platformtest.TestStore(t, func(t *testing.T) platform.Store { return find(t, o, "pkcs11:"+token.Module.TokenLabel) },
		platformtest.StoreTests{PSS: true, Agree: true, Algorithms: kinds(t), Sealed: sealed(token)})
}

func TestTPMStore(t *testing.T) {
	token := platformtest.StartTPM(t)
	o := platform.StoreOptions{Home: t.TempDir(), Modules: []platform.Module{token.Module}, PIN: token.AskPIN(t)}
	name := "pkcs11:" + token.Module.TokenLabel
	t.Logf("the TPM says: %+v", find(t, o, name).Info())
	platformtest.TestStore(t, func(t *testing.T) platform.Store { return find(t, o, name) },
		platformtest.StoreTests{Algorithms: kinds(t), Sealed: sealed(token)})
}

func TestFileStore(t *testing.T) {
	o := platform.StoreOptions{Home: t.TempDir()}
	platformtest.TestStore(t, func(t *testing.T) platform.Store { return find(t, o, "file") },
		platformtest.StoreTests{PSS: true, OAEP: true, Agree: true, Algorithms: kinds(t)})
}

// sealed asks the module itself, past our code, for the private parts.
func sealed(token platformtest.Token) func(*testing.T, platform.KeyID) {
	return func(t *testing.T, id platform.KeyID) {
		t.Helper()
		c := p11.New(token.Module.Path)
		if c == nil {
			t.Fatal("module cannot be loaded")
		}
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(c.Initialize())
		defer func() { check(c.Finalize()) }()
		slots, err := c.GetSlotList(true)
		check(err)
		for _, slot := range slots {
			info, err := c.GetTokenInfo(slot)
			check(err)
			if info.Label == token.Module.TokenLabel {
				checkSealed(t, c, slot, token.PIN, id)
				return
			}
		}
		t.Fatal("the token is not there")
	}
}

func checkSealed(t *testing.T, c *p11.Ctx, slot uint, pin string, id platform.KeyID) {
	t.Helper()
	h, err := c.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Login(h, p11.CKU_USER, pin); err != nil {
		t.Fatal(err)
	}
	if err := c.FindObjectsInit(h, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), p11.NewAttribute(p11.CKA_LABEL, string(id))}); err != nil {
		t.Fatal(err)
	}
	found, _, err := c.FindObjects(h, 2)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d private keys of that label, %v", len(found), err)
	}
	if err := c.FindObjectsFinal(h); err != nil {
		t.Fatal(err)
	}
	for _, part := range []uint{p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_VALUE} {
		a, err := c.GetAttributeValue(h, found[0], []*p11.Attribute{p11.NewAttribute(part, nil)})
		if err == nil && len(a[0].Value) > 0 {
			t.Errorf("attribute %#x can be read", part)
		}
	}
}
