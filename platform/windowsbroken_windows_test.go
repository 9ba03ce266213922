package platform_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
	"smime-agent/platform/internal/wincrypt"
	"smime-agent/platform/platformtest"
)

// myRegistry is where the user's store lies in the registry.
const myRegistry = `Software\Microsoft\SystemCertificates\My\Certificates\`

// plantBlob writes an entry of the user's store past Windows' own code.
func plantBlob(t *testing.T, der, blob []byte) {
	t.Helper()
	sum := sha1.Sum(der)
	name := myRegistry + strings.ToUpper(hex.EncodeToString(sum[:]))
	k, _, err := registry.CreateKey(registry.CURRENT_USER, name, registry.SET_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.SetBinaryValue("Blob", blob); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.DeleteKey(registry.CURRENT_USER, name); err != nil && !errors.Is(err, registry.ErrNotExist) {
			t.Error(err)
		}
	})
}

// property is one element of an entry: a number, an encoding, a length.
func property(id byte, value []byte) []byte {
	n := len(value)
	return append([]byte{id, 0, 0, 0, 1, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), 0}, value...)
}

// plantCertificate files what Windows itself takes for a certificate.
func plantCertificate(t *testing.T, der []byte, key wincrypt.KeyLocation) {
	t.Helper()
	change := func(fn func(*wincrypt.CertStore) error) {
		t.Helper()
		cs, err := wincrypt.OpenCertStore(wincrypt.My)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fn(cs), cs.Close()); err != nil {
			t.Fatal(err)
		}
	}
	change(func(cs *wincrypt.CertStore) error { return cs.Add(der, key, "planted") })
	t.Cleanup(func() { change(func(cs *wincrypt.CertStore) error { return cs.Remove(der) }) })
}

// strange is a certificate that Windows files and crypto/x509 refuses: its
// version is 17.
func strange(t *testing.T, ca *platformtest.Authority) []byte {
	t.Helper()
	der := bytes.Clone(ca.Chain(t, newRSA(t), 0)[0].Raw)
	at := bytes.Index(der, []byte{0xa0, 3, 2, 1, 2})
	if at < 0 {
		t.Fatal("there is no version in the certificate")
	}
	der[at+4] = 16
	if c, err := x509.ParseCertificate(der); err == nil {
		t.Fatalf("crypto/x509 takes it: %v", c.Version)
	}
	return der
}

func newRSA(t *testing.T) crypto.PublicKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// TestWindowsBrokenEntries: what others left in the store stops nothing.
func TestWindowsBrokenEntries(t *testing.T) {
	ca := platformtest.NewAuthority(t)
	whole := ca.Chain(t, newRSA(t), 0)[0].Raw
	plantBlob(t, []byte("noise"), bytes.Repeat([]byte{0xff}, 400))
	plantBlob(t, []byte("empty"), nil)
	plantBlob(t, []byte("no certificate"), property(32, []byte("this is no DER")))
	plantBlob(t, []byte("cut"), property(32, whole)[:len(whole)/2])
	plantBlob(t, whole, append(property(2, bytes.Repeat([]byte{0x41}, 50)), property(32, whole)...)) // a place of the key that is noise
	odd := strange(t, ca)
	plantCertificate(t, odd, wincrypt.KeyLocation{Container: "nowhere", Provider: "Nobody's Provider", Type: 99, Spec: 7})
	orphan := ca.Chain(t, newRSA(t), 0)[0]
	plantCertificate(t, orphan.Raw, wincrypt.KeyLocation{Container: "smime-gone", Provider: wincrypt.CAPIProvider, Type: wincrypt.CAPIProviderType, Spec: 1})
	if _, ok := entryFor(t, wincrypt.My, orphan); !ok {
		t.Fatal("the orphan was not planted")
	}
	seen := false
	for _, f := range entries(t, wincrypt.My) {
		seen = seen || bytes.Equal(f.DER, odd)
	}
	if !seen {
		t.Fatal("the strange certificate was not planted")
	}

	s, id := windowsStore(t), platformtest.NewID(t)
	chain := ca.Chain(t, makeWindowsKey(t, s, id).Public(), 0)
	if err := s.Install(t.Context(), id, chain); err != nil {
		t.Fatalf("Install: %v", err)
	}
	found, err := windowsStore(t).Find(t.Context(), id)
	if err != nil || len(found) != 3 || !found[0].Equal(chain[0]) {
		t.Errorf("Find: %d certificates, %v", len(found), err)
	}
	infos, err := s.Keys(t.Context())
	if err != nil || len(infos) == 0 {
		t.Errorf("Keys: %v, %v", infos, err)
	}
	for _, info := range infos {
		if info.ID == "smime-gone" {
			t.Error("a certificate without a key is listed as a key")
		}
	}
	if err := s.Remove(t.Context(), chain[0]); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

// plantHalf makes a container without a key, as a crash leaves it.
func plantHalf(t *testing.T, id platform.KeyID) {
	t.Helper()
	container, err := windows.UTF16PtrFromString(string(id))
	if err != nil {
		t.Fatal(err)
	}
	provider, err := windows.UTF16PtrFromString(wincrypt.CAPIProvider)
	if err != nil {
		t.Fatal(err)
	}
	var h windows.Handle
	if err := windows.CryptAcquireContext(&h, container, provider, wincrypt.CAPIProviderType, windows.CRYPT_NEWKEYSET|windows.CRYPT_SILENT); err != nil {
		t.Fatal(err)
	}
	if err := windows.CryptReleaseContext(h, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wincrypt.DeleteContainer(string(id)); err != nil && wincrypt.ClassOf(err) != wincrypt.Missing {
			t.Error(err)
		}
	})
}

func listedAs(t *testing.T, s platform.Store, id platform.KeyID) (platform.KeyInfo, bool) {
	t.Helper()
	infos, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if info.ID == id {
			return info, true
		}
	}
	return platform.KeyInfo{}, false
}

// TestWindowsHalfKey: half a key is listed, is not opened, goes at Delete, and
// does not stand in the way of a new one.
func TestWindowsHalfKey(t *testing.T) {
	s, id := windowsStore(t), platformtest.NewID(t)
	plantHalf(t, id)
	if info, ok := listedAs(t, s, id); !ok || info.Public != nil || info.Certified {
		t.Errorf("Keys: %+v, %v", info, ok)
	}
	if _, err := s.Open(t.Context(), id); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Open: %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, ok := listedAs(t, s, id); ok {
		t.Error("it is still listed after Delete")
	}
	plantHalf(t, id)
	makeWindowsKey(t, s, id)
	if info, ok := listedAs(t, s, id); !ok || info.Public == nil {
		t.Errorf("Keys after Create: %+v, %v", info, ok)
	}
}

// TestWindowsHalfKeyCertified: half a key that a certificate names is left for
// a person to mend; nothing clears it away.
func TestWindowsHalfKeyCertified(t *testing.T) {
	s, id, ca := windowsStore(t), platformtest.NewID(t), platformtest.NewAuthority(t)
	plantHalf(t, id)
	plantCertificate(t, ca.Chain(t, newRSA(t), 0)[0].Raw,
		wincrypt.KeyLocation{Container: string(id), Provider: wincrypt.CAPIProvider, Type: wincrypt.CAPIProviderType, Spec: 1})
	if _, err := s.Create(t.Context(), id, platform.KeySpec{Algorithm: platform.RSA2048, Sign: true}); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Create: %v, want ErrDenied", err)
	}
	if err := s.Delete(t.Context(), id); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Delete: %v, want ErrDenied", err)
	}
	if info, ok := listedAs(t, s, id); !ok || info.Public != nil || !info.Certified {
		t.Errorf("Keys: %+v, %v", info, ok)
	}
}
