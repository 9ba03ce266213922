package platform_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/internal/security"
	"smime-agent/platform/platformtest"
)

// TestKeychain holds the store's logic to its promises over a keychain in
// memory; the real one is held to the same on a Mac.
func TestKeychain(t *testing.T) {
	m := &platform.MemoryKeychain{}
	o := platformtest.StoreTests{PSS: true, OAEP: true, Agree: true,
		Algorithms: []platform.KeyAlgorithm{platform.RSA2048, platform.P256, platform.P384}}
	platformtest.TestStore(t, func(*testing.T) platform.Store { return m.Store() }, o)
	if m.Open != 0 {
		t.Errorf("%d keychains were left open", m.Open)
	}
	if !slices.Equal(m.Programs, []string{"/Mail.app"}) {
		t.Errorf("the key is for %q", m.Programs)
	}
}

func makeMacKey(t *testing.T, s platform.Store, id platform.KeyID) platform.Key {
	t.Helper()
	key, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256, Sign: true, Decrypt: true, Owner: "alice@example.com"})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return key
}

// TestKeychainRefusesExtractable: a key that could be taken out is no key.
func TestKeychainRefusesExtractable(t *testing.T) {
	for name, m := range map[string]*platform.MemoryKeychain{
		"extractable": {Extractable: true},
		"not told":    {Fail: failing("Extractable", security.InternalComponent)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.Store().Create(t.Context(), platformtest.NewID(t), platform.KeySpec{Algorithm: platform.P256})
			if err == nil {
				t.Error("the key was taken")
			}
			if left := m.Names(); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func failing(call string, status security.Status) func(string) error {
	return func(name string) error {
		if name == call {
			return status
		}
		return nil
	}
}

// TestKeychainHalves: what a crash leaves is listed as half a key and gives way
// to the next attempt; what has a certificate never does.
func TestKeychainHalves(t *testing.T) {
	for name, spoil := range map[string]func(*platform.MemoryKeychain, platform.KeyID){
		"no tag":    (*platform.MemoryKeychain).LoseTag,
		"no public": (*platform.MemoryKeychain).LosePublic,
	} {
		t.Run(name, func(t *testing.T) {
			m, id := &platform.MemoryKeychain{}, platformtest.NewID(t)
			s := m.Store()
			makeMacKey(t, s, id)
			spoil(m, id)
			infos, err := s.Keys(t.Context())
			if err != nil || len(infos) != 1 || infos[0].ID != id || infos[0].Public != nil {
				t.Errorf("Keys: %+v, %v", infos, err)
			}
			if _, err := s.Open(t.Context(), id); !errors.Is(err, platform.ErrNotFound) {
				t.Errorf("Open of half a key: %v", err)
			}
			makeMacKey(t, s, id)
			if names := m.Names(); len(names) != 1 || !strings.Contains(names[0], "alice@example.com") {
				t.Errorf("keys: %q", names)
			}
		})
	}
}

// TestKeychainLostPublic: a certified key whose public part is gone still opens.
func TestKeychainLostPublic(t *testing.T) {
	m, id := &platform.MemoryKeychain{}, platformtest.NewID(t)
	s := m.Store()
	key := makeMacKey(t, s, id)
	if err := s.Install(t.Context(), id, platformtest.NewAuthority(t).Chain(t, key.Public(), 0)); err != nil {
		t.Fatal(err)
	}
	m.LosePublic(id)
	found, err := s.Open(t.Context(), id)
	if err != nil || !sameKeys(found, key) {
		t.Errorf("Open: %v", err)
	}
	m.LoseTag(id)
	if _, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.P256}); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Create over a certified key: %v, want ErrDenied", err)
	}
	if err := s.Delete(t.Context(), id); !errors.Is(err, platform.ErrDenied) || len(m.Names()) != 1 {
		t.Errorf("Delete of a certified key: %v, left %q", err, m.Names())
	}
}

// TestKeychainUnreadable: trouble with the public part does not make half a key
// of a good one.
func TestKeychainUnreadable(t *testing.T) {
	m, id := &platform.MemoryKeychain{}, platformtest.NewID(t)
	s := m.Store()
	makeMacKey(t, s, id)
	m.Fail = failing("Public", security.AuthFailed)
	if infos, err := s.Keys(t.Context()); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Keys: %+v, %v, want ErrDenied", infos, err)
	}
	if err := s.Delete(t.Context(), id); err == nil || len(m.Names()) != 1 {
		t.Errorf("Delete: %v, left %q", err, m.Names())
	}
}

// TestKeychainPrefers the newest certificate, in each spelling of the address.
func TestKeychainPrefers(t *testing.T) {
	m, id, ca := &platform.MemoryKeychain{}, platformtest.NewID(t), platformtest.NewAuthority(t)
	s := m.Store()
	key := makeMacKey(t, s, id)
	old, young := ca.Chain(t, key.Public(), 0), ca.Chain(t, key.Public(), 1)
	if len(old[0].EmailAddresses) == 0 {
		t.Fatal("the test's certificate has no address")
	}
	address := old[0].EmailAddresses[0]
	if err := s.Install(t.Context(), id, old); err != nil {
		t.Fatal(err)
	}
	if got := m.Preferred[security.ForSigning][address]; !bytes.Equal(got, old[0].Raw) {
		t.Error("the first certificate is not preferred")
	}
	for _, chain := range [][]byte{young[0].Raw, old[0].Raw} {
		again := young
		if bytes.Equal(chain, old[0].Raw) {
			again = old
		}
		if err := s.Install(t.Context(), id, again); err != nil {
			t.Fatal(err)
		}
		for _, spelling := range []string{address, strings.ToLower(address)} {
			if got := m.Preferred[security.ForSigning][spelling]; !bytes.Equal(got, young[0].Raw) {
				t.Errorf("the newest certificate is not preferred for %s", spelling)
			}
		}
	}
	m.Fail = failing("CheckIdentity", security.ItemNotFound)
	if err := s.Install(t.Context(), id, young); err == nil || errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Install without identity: %v; the key must not count as missing", err)
	}
}

// TestKeychainSentinels: each status means one thing, and stays in the chain.
func TestKeychainSentinels(t *testing.T) {
	for status, want := range map[security.Status]error{
		security.ItemNotFound:          platform.ErrNotFound,
		security.DuplicateItem:         platform.ErrExists,
		security.InteractionNotAllowed: platform.ErrLocked,
		security.NoDefaultKeychain:     platform.ErrLocked,
		security.NoSuchKeychain:        platform.ErrLocked,
		security.NotAvailable:          platform.ErrLocked,
		security.InteractionRequired:   platform.ErrLocked,
		security.InDarkWake:            platform.ErrLocked,
		security.AuthFailed:            platform.ErrDenied,
		security.WritePermission:       platform.ErrDenied,
		security.ReadOnly:              platform.ErrDenied,
		security.InsufficientClientID:  platform.ErrDenied,
		security.InvalidACL:            platform.ErrDenied,
		security.AuthorizationDenied:   platform.ErrDenied,
		security.AuthorizationCanceled: platform.ErrDenied,
		security.UserCanceled:          platform.ErrDenied,
		security.Unimplemented:         platform.ErrUnsupported,
		security.MissingEntitlement:    nil,
		security.BadParameter:          nil,

		security.AuthorizationInteractionNotAllowed: platform.ErrLocked,
	} {
		m := &platform.MemoryKeychain{Fail: failing("Open", status)}
		_, err := m.Store().Keys(t.Context())
		if !errors.Is(err, status) || want != nil && !errors.Is(err, want) {
			t.Errorf("%v became %v, want %v", status, err, want)
		}
		for _, other := range []error{platform.ErrNotFound, platform.ErrExists, platform.ErrLocked, platform.ErrDenied, platform.ErrUnsupported} {
			if !errors.Is(want, other) && errors.Is(err, other) {
				t.Errorf("%v counts as %v, too", status, other)
			}
		}
	}
}

// TestKeychainLocked: where nobody may be asked, the system says "authorization
// failed" of a locked keychain as of one that refuses; the person must hear which
// it is. A keychain that cannot tell refuses.
func TestKeychainLocked(t *testing.T) {
	m, id := &platform.MemoryKeychain{}, platformtest.NewID(t)
	key := makeMacKey(t, m.Store(), id)
	sign := func() error {
		_, err := key.Sign(nil, make([]byte, 32), crypto.SHA256)
		return err
	}
	list := func() error {
		_, err := m.Store().Keys(t.Context())
		return err
	}
	mail := func() error {
		_, err := m.AppleMail(platform.TempDir(t)).Accounts(t.Context(), "alice@example.com")
		return err
	}
	for call, use := range map[string]func() error{"Sign": sign, "Items": list, "Certificates": mail} {
		for _, locked := range []bool{true, false} {
			m.Locked, m.Fail = locked, failing(call, security.AuthFailed)
			if err := use(); errors.Is(err, platform.ErrLocked) != locked || errors.Is(err, platform.ErrDenied) == locked || !errors.Is(err, security.AuthFailed) {
				t.Errorf("%s with locked = %v: %v", call, locked, err)
			}
		}
		m.Locked, m.Fail = true, func(name string) error {
			if name == call || name == "Unlocked" {
				return security.AuthFailed
			}
			return nil
		}
		if err := use(); !errors.Is(err, platform.ErrDenied) || errors.Is(err, platform.ErrLocked) {
			t.Errorf("%s of a keychain that cannot tell: %v", call, err)
		}
	}
	if m.Open != 0 {
		t.Errorf("%d keychains were left open", m.Open)
	}
}

// TestKeychainRefusedUse: a key that may not be used now is no bad padding, and
// a wrong length is no decryption.
func TestKeychainRefusedUse(t *testing.T) {
	m, id := &platform.MemoryKeychain{}, platformtest.NewID(t)
	made, err := m.Store().Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048, Decrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	key, ok := made.(crypto.Decrypter)
	if !ok {
		t.Fatalf("%T does not decrypt", made)
	}
	opts := &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 16} //nolint:staticcheck // what mail programs still send
	m.Fail = failing("Decrypt", security.InteractionNotAllowed)
	if got, err := key.Decrypt(nil, make([]byte, 256), opts); !errors.Is(err, platform.ErrLocked) {
		t.Errorf("Decrypt while locked: %x, %v", got, err)
	}
	m.Fail = failing("Sign", security.AuthFailed)
	if _, err := made.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Sign while refused: %v", err)
	}
	for name, sign := range map[string]crypto.SignerOpts{
		"hash": crypto.SHA1, "salt": &rsa.PSSOptions{SaltLength: 7, Hash: crypto.SHA256}, "no hash": &rsa.PSSOptions{},
	} {
		if _, err := made.Sign(nil, make([]byte, 32), sign); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("Sign with a wrong %s: %v", name, err)
		}
	}
	if _, err := made.Sign(nil, make([]byte, 20), crypto.SHA256); err == nil {
		t.Error("a short digest was signed")
	}
}

// sameKeys compares public parts.
func sameKeys(a, b platform.Key) bool {
	public, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b.Public())
}
