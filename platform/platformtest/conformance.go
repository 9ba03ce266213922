package platformtest

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"smime-agent/platform"
)

// StoreTests says what [TestStore] expects of a store beyond its promises.
type StoreTests struct {
	// Algorithms are the kinds of keys to try; nil means all that the store names.
	Algorithms []platform.KeyAlgorithm
	// PSS, OAEP and Agree say that the store must be able to; where they are
	// false, it may answer [platform.ErrUnsupported] instead of a right result,
	// and nothing else.
	PSS, OAEP, Agree bool
	// Sealed, if set, checks that the private parts of a fresh key cannot be read
	// out of the store.
	Sealed func(t *testing.T, id platform.KeyID)
}

// TestStore runs the promises of [platform.Store] against a store. open opens
// it; within one test every call must open the same place, which need not be
// empty: the suite names its keys at random.
func TestStore(t *testing.T, open func(t *testing.T) platform.Store, o StoreTests) {
	t.Helper()
	t.Run("info", func(t *testing.T) { testInfo(t, open(t)) })
	algorithms := o.Algorithms
	if algorithms == nil {
		algorithms = open(t).Info().Algorithms
	}
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			s := &storeSuite{open: open, o: o, algorithm: a}
			t.Run("life", s.life)
			t.Run("certificates", s.certificates)
		})
	}
	s := &storeSuite{open: open, o: o, algorithm: algorithms[0]}
	t.Run("absent", s.absent)
	t.Run("listing", s.listing)
	t.Run("wrong leaf", s.wrongLeaf)
	t.Run("deletion", s.deletion)
	t.Run("unknown kind", s.unknownKind)
}

type storeSuite struct {
	open      func(t *testing.T) platform.Store
	o         StoreTests
	algorithm platform.KeyAlgorithm
}

func testInfo(t *testing.T, s platform.Store) {
	info := s.Info()
	if info.Name == "" || len(info.Algorithms) == 0 {
		t.Errorf("a store must have a name and make keys: %+v", info)
	}
	if !slices.Contains([]platform.Protection{platform.Hardware, platform.NonExportable, platform.Software}, info.Protection) {
		t.Errorf("protection %q is none of the three", info.Protection)
	}
}

// NewID gives a key ID of ours that was never used.
func NewID(t testing.TB) platform.KeyID {
	t.Helper()
	raw := make([]byte, 8)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return platform.KeyID(platform.OurPrefix + hex.EncodeToString(raw))
}

func (s *storeSuite) create(t *testing.T, store platform.Store, id platform.KeyID) platform.Key {
	t.Helper()
	spec := platform.KeySpec{Algorithm: s.algorithm, Sign: true, Decrypt: true}
	k, err := store.Create(t.Context(), id, spec)
	if errors.Is(err, platform.ErrUnsupported) && !s.o.Agree {
		spec.Decrypt = false // a store that cannot agree must not make EC keys that shall
		k, err = store.Create(t.Context(), id, spec)
	}
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return k
}

// life: a key is made, found again by whoever opens the store, and works.
func (s *storeSuite) life(t *testing.T) {
	ctx, id, store := t.Context(), NewID(t), s.open(t)
	made := s.create(t, store, id)
	if made.ID() != id {
		t.Errorf("ID is %q, want %q", made.ID(), id)
	}
	checkKind(t, s.algorithm, made.Public())
	if err := made.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := store.Create(ctx, id, platform.KeySpec{Algorithm: s.algorithm, Sign: true}); !errors.Is(err, platform.ErrExists) {
		t.Errorf("Create again: %v, want ErrExists", err)
	}
	found, err := s.open(t).Open(ctx, id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer closeKey(t, found)
	if found.ID() != id || !samePublic(found.Public(), made.Public()) {
		t.Errorf("Open gave another key than Create")
	}
	if s.o.Sealed != nil {
		s.o.Sealed(t, id)
	}
	t.Run("sign", func(t *testing.T) { checkSign(t, found) })
	t.Run("pss", func(t *testing.T) { checkPSS(t, found, s.o.PSS) })
	t.Run("decrypt", func(t *testing.T) { checkDecrypt(t, found, s.o.OAEP) })
	t.Run("agree", func(t *testing.T) { checkAgree(t, found, s.o.Agree) })
	t.Run("request", func(t *testing.T) { checkRequest(t, found) })
}

func closeKey(t *testing.T, k platform.Key) {
	t.Helper()
	if err := k.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// certificates: filed twice without harm, found with their issuers, the newest
// first, and taken away without the key.
func (s *storeSuite) certificates(t *testing.T) {
	ctx, id, store, ca := t.Context(), NewID(t), s.open(t), NewAuthority(t)
	key := s.create(t, store, id)
	defer closeKey(t, key)
	first := ca.Chain(t, key.Public(), 0)
	for range 2 {
		if err := store.Install(ctx, id, first); err != nil {
			t.Fatalf("Install: %v", err)
		}
	}
	checkFound(t, s.open(t), id, first)
	if _, err := store.Create(ctx, id, platform.KeySpec{Algorithm: s.algorithm, Sign: true}); !errors.Is(err, platform.ErrExists) {
		t.Errorf("Create of a certified key: %v, want ErrExists", err)
	}
	second := ca.Chain(t, key.Public(), 1)
	if err := store.Install(ctx, id, second); err != nil {
		t.Fatalf("Install of a second certificate: %v", err)
	}
	checkFound(t, store, id, second)
	if err := store.Install(ctx, id, first); err != nil {
		t.Fatalf("Install of the first again: %v", err)
	}
	checkFound(t, store, id, second)
	for range 2 {
		if err := store.Remove(ctx, second[0]); err != nil {
			t.Fatalf("Remove: %v", err)
		}
	}
	checkFound(t, store, id, first)
	if err := store.Remove(ctx, first[0]); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	if _, err := store.Find(ctx, id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Find after Remove: %v, want ErrNotFound", err)
	}
	still, err := store.Open(ctx, id)
	if err != nil {
		t.Fatalf("Open after Remove: %v", err)
	}
	defer closeKey(t, still)
	checkSign(t, still)
}

func checkFound(t *testing.T, store platform.Store, id platform.KeyID, want []*x509.Certificate) {
	t.Helper()
	got, err := store.Find(t.Context(), id)
	if err != nil {
		t.Fatalf("Find: %v", err)
	}
	if !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
		t.Errorf("Find gave %v, want %v", names(got), names(want))
	}
}

func names(chain []*x509.Certificate) []string {
	var out []string
	for _, c := range chain {
		out = append(out, c.Subject.String()+" "+c.SerialNumber.String())
	}
	return out
}

// absent: what is not there is said so, and its removal is no error.
func (s *storeSuite) absent(t *testing.T) {
	ctx, id, store, ca := t.Context(), NewID(t), s.open(t), NewAuthority(t)
	if _, err := store.Open(ctx, id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Open: %v, want ErrNotFound", err)
	}
	if _, err := store.Find(ctx, id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Find: %v, want ErrNotFound", err)
	}
	if err := store.Delete(ctx, id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	stranger := ca.Chain(t, newStranger(t), 0)
	if err := store.Install(ctx, id, stranger); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Install: %v, want ErrNotFound", err)
	}
	if err := store.Remove(ctx, stranger[0]); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

// listing: Keys lists ours and nobody else's.
func (s *storeSuite) listing(t *testing.T) {
	store, ours, others := s.open(t), NewID(t), platform.KeyID("other-"+string(NewID(t)))
	key := s.create(t, store, ours)
	defer closeKey(t, key)
	closeKey(t, s.create(t, store, others))
	info := listed(t, s.open(t), ours)
	if info == nil || !samePublic(info.Public, key.Public()) || info.Certified {
		t.Errorf("Keys before a certificate: %+v", info)
	}
	if listed(t, store, others) != nil {
		t.Errorf("Keys lists a key that is not named as ours")
	}
	if err := store.Install(t.Context(), ours, NewAuthority(t).Chain(t, key.Public(), 0)); err != nil {
		t.Fatalf("Install: %v", err)
	}
	if info := listed(t, s.open(t), ours); info == nil || !info.Certified {
		t.Errorf("Keys after a certificate: %+v", info)
	}
}

func listed(t *testing.T, store platform.Store, id platform.KeyID) *platform.KeyInfo {
	t.Helper()
	all, err := store.Keys(t.Context())
	if err != nil {
		t.Fatalf("Keys: %v", err)
	}
	var found *platform.KeyInfo
	for _, info := range all {
		if info.ID != id {
			continue
		}
		if found != nil {
			t.Errorf("Keys lists %s twice", id)
		}
		found = &info
	}
	return found
}

// wrongLeaf: a certificate for another key is refused, and nothing is filed.
func (s *storeSuite) wrongLeaf(t *testing.T) {
	ctx, id, store, ca := t.Context(), NewID(t), s.open(t), NewAuthority(t)
	closeKey(t, s.create(t, store, id))
	for name, chain := range map[string][]*x509.Certificate{
		"another key": ca.Chain(t, newStranger(t), 0),
		"empty":       nil,
	} {
		if err := store.Install(ctx, id, chain); err == nil {
			t.Errorf("Install of a chain with %s leaf went through", name)
		}
	}
	if _, err := store.Find(ctx, id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Find after refusal: %v, want ErrNotFound", err)
	}
}

// deletion: only a key without certificate goes.
func (s *storeSuite) deletion(t *testing.T) {
	ctx, id, store := t.Context(), NewID(t), s.open(t)
	key := s.create(t, store, id)
	chain := NewAuthority(t).Chain(t, key.Public(), 0)
	if err := store.Install(ctx, id, chain); err != nil {
		t.Fatalf("Install: %v", err)
	}
	if err := store.Delete(ctx, id); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Delete of a certified key: %v, want ErrDenied", err)
	}
	checkSign(t, key)
	closeKey(t, key)
	if err := store.Remove(ctx, chain[0]); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	for range 2 {
		if err := store.Delete(ctx, id); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	if _, err := store.Open(ctx, id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Open after Delete: %v, want ErrNotFound", err)
	}
	if info := listed(t, store, id); info != nil {
		t.Errorf("Keys lists a deleted key: %+v", info)
	}
}

func (s *storeSuite) unknownKind(t *testing.T) {
	id, store := NewID(t), s.open(t)
	_, err := store.Create(t.Context(), id, platform.KeySpec{Algorithm: "dsa-1024", Sign: true})
	if !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("Create: %v, want ErrUnsupported", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Open(ctx, id); err == nil {
		t.Error("Open of a missing key went through")
	}
}
