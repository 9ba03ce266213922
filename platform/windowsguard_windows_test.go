package platform

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"smime-agent/platform/internal/wincrypt"
)

// bent is a provider that does one thing wrong. It keeps keys in memory.
type bent struct {
	keys map[string]crypto.Signer
	// What it does wrong.
	unsealed, forgets, wrongSignature, wrongPlain, wrongSecret bool
	refuses                                                    error
	removed                                                    []string
}

func (b *bent) make(name string, spec KeySpec) error {
	if b.refuses != nil {
		return b.refuses
	}
	k, err := generate(spec.Algorithm)
	if !b.forgets {
		b.keys[name] = k
	}
	return err
}

func (b *bent) open(name string) (windowsHandle, error) {
	if k, ok := b.keys[name]; ok {
		return bentHandle{b, k}, nil
	}
	return nil, &wincrypt.Error{Call: "open", Code: 0x80090016}
}

func (b *bent) names() (all []string, _ error) {
	for name := range b.keys {
		all = append(all, name)
	}
	return all, nil
}

func (b *bent) remove(name string) error {
	delete(b.keys, name)
	b.removed = append(b.removed, name)
	return nil
}

type bentHandle struct {
	b *bent
	k crypto.Signer
}

func (h bentHandle) Close() error { return nil }

func (h bentHandle) facts() (windowsFacts, error) {
	return windowsFacts{public: h.k.Public(), sealed: !h.b.unsealed}, nil
}

func (h bentHandle) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h.b.wrongSignature {
		digest = slices.Repeat([]byte{1}, len(digest))
	}
	return h.k.Sign(rand.Reader, digest, opts)
}

func (h bentHandle) decrypt(msg []byte, _ *rsa.OAEPOptions) ([]byte, error) {
	k, ok := h.k.(*rsa.PrivateKey)
	if !ok {
		return nil, ErrUnsupported
	}
	plain, err := k.Decrypt(nil, msg, nil)
	if h.b.wrongPlain {
		slices.Reverse(plain)
	}
	return plain, err
}

func (h bentHandle) agree(remote []byte) ([]byte, error) {
	k, ok := h.k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, ErrUnsupported
	}
	own, err := k.ECDH()
	if err != nil {
		return nil, err
	}
	other, err := ecdh.P256().NewPublicKey(slices.Concat([]byte{4}, remote[8:]))
	if err != nil {
		return nil, err
	}
	secret, err := own.ECDH(other)
	if h.b.wrongSecret {
		slices.Reverse(secret)
	}
	return secret, err
}

// TestCreateBelievesNoProvider: a key that could be exported, is not kept, or
// does not do what it is for, is refused and taken away.
func TestCreateBelievesNoProvider(t *testing.T) {
	for name, c := range map[string]struct {
		bent bent
		kind KeyAlgorithm
		want error
	}{
		"straight":        {bent{}, RSA2048, nil},
		"straight EC":     {bent{}, P256, nil},
		"exportable":      {bent{unsealed: true}, RSA2048, ErrUnsupported},
		"forgets":         {bent{forgets: true}, RSA2048, ErrUnsupported},
		"wrong signature": {bent{wrongSignature: true}, RSA2048, ErrUnsupported},
		"wrong EC":        {bent{wrongSignature: true}, P256, ErrUnsupported},
		"wrong plain":     {bent{wrongPlain: true}, RSA2048, ErrUnsupported},
		"wrong secret":    {bent{wrongSecret: true}, P256, ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			c.bent.keys = map[string]crypto.Signer{}
			s := &windowsStore{providers: []windowsProvider{&c.bent}, info: StoreInfo{Name: "bent", Algorithms: allAlgorithms()}}
			id := KeyID(OurPrefix + "guard")
			k, err := s.Create(t.Context(), id, KeySpec{Algorithm: c.kind, Sign: true, Decrypt: true})
			if !errors.Is(err, c.want) || (k == nil) != (c.want != nil) {
				t.Errorf("Create: %v, %v; want %v", k, err, c.want)
			}
			if _, there := c.bent.keys[string(id)]; there != (c.want == nil) {
				t.Errorf("the key is there: %v", there)
			}
		})
	}
}

// TestCreateGoesOn: the next provider is asked where the first cannot, never
// where it refuses.
func TestCreateGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		refusal uint32
		want    error
	}{
		"cannot":    {0x80090029, nil},
		"denies":    {0x80090010, ErrDenied},
		"not ready": {0x80090030, ErrLocked},
	} {
		t.Run(name, func(t *testing.T) {
			first := &bent{keys: map[string]crypto.Signer{}, refuses: &wincrypt.Error{Call: "make", Code: c.refusal}}
			second := &bent{keys: map[string]crypto.Signer{}}
			s := &windowsStore{providers: []windowsProvider{first, second}, info: StoreInfo{Name: "bent", Algorithms: allAlgorithms()}}
			_, err := s.Create(t.Context(), "smime-on", KeySpec{Algorithm: P256, Sign: true})
			if !errors.Is(err, c.want) || len(second.keys) == 1 != (c.want == nil) {
				t.Errorf("Create: %v, want %v; the second made %d", err, c.want, len(second.keys))
			}
		})
	}
}

// TestPlantedExportable: a key under our name that could be exported and never
// had a certificate is not opened, and Create makes another.
func TestPlantedExportable(t *testing.T) {
	planted, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bent{keys: map[string]crypto.Signer{"smime-planted": planted}, unsealed: true}
	s := &windowsStore{providers: []windowsProvider{b}, info: StoreInfo{Name: "bent", Algorithms: allAlgorithms()}}
	if _, err := s.Open(t.Context(), "smime-planted"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open: %v, want ErrNotFound", err)
	}
	if infos, err := s.Keys(t.Context()); err != nil || len(infos) != 1 || infos[0].Public != nil {
		t.Errorf("Keys: %+v, %v", infos, err)
	}
	if err := s.makeRoom("smime-planted"); err != nil || !slices.Equal(b.removed, []string{"smime-planted"}) {
		t.Errorf("makeRoom: %v, removed %v", err, b.removed)
	}
}

// TestArchived: an archived certificate guards its key, and is found only where
// there is no other.
func TestArchived(t *testing.T) {
	key, err := generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	newest, older := selfSigned(t, key, time.Now()), selfSigned(t, key, time.Now().Add(-time.Hour))
	list := []wincrypt.Filed{{DER: newest, Archived: true}, {DER: []byte("noise")}, {DER: older}}
	if got := parsed(list, false); len(got) != 1 || string(got[0].Raw) != string(older) {
		t.Errorf("%d in sight", len(got))
	}
	if got := parsed(list, true); len(got) != 1 || string(got[0].Raw) != string(newest) {
		t.Errorf("%d archived", len(got))
	}
	if !certifies(list[:1], "smime-a", key.Public()) {
		t.Error("an archived certificate does not guard its key")
	}
	if certifies(list[1:2], "smime-a", key.Public()) {
		t.Error("noise guards a key")
	}
	if !certifies([]wincrypt.Filed{{DER: []byte("noise"), Key: wincrypt.KeyLocation{Container: "SMIME-A"}}}, "smime-a", nil) {
		t.Error("an entry that names the key does not guard it")
	}
}

func selfSigned(t *testing.T, key crypto.Signer, from time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(from.Unix()), NotBefore: from, NotAfter: from.Add(48 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
