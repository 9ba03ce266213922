package winestore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/smime"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// These tests are the driven half: what they do and where the files lie is in
// variables; without, they have nothing to do.
const (
	dirVariable     = "SMIME_TEST_DIR"
	kindVariable    = "SMIME_TEST_KIND"
	mailboxVariable = "SMIME_TEST_MAILBOX"
)

func driven(t *testing.T) (string, platform.Store) {
	t.Helper()
	dir := os.Getenv(dirVariable)
	if dir == "" {
		t.Skip("SKIP: the half for Linux drives this test")
	}
	list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Info().Name == "windows" {
			return dir, s
		}
	}
	t.Fatal("there is no store windows")
	return "", nil
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMake makes two generations of a credential. The files say which keys they are.
func TestMake(t *testing.T) {
	dir, store := driven(t)
	ca := newAuthority(t)
	write(t, dir, "root.pem", encode(ca.root))
	for generation, name := range []string{"old", "new"} {
		id := platformtest.NewID(t)
		spec := platform.KeySpec{Algorithm: platform.KeyAlgorithm(os.Getenv(kindVariable)), Sign: true, Decrypt: true}
		key, err := store.Create(t.Context(), id, spec)
		if err != nil {
			t.Fatal(err)
		}
		leaf := ca.issue(t, key.Public(), os.Getenv(mailboxVariable), time.Duration(generation)*time.Minute)
		if err := store.Install(t.Context(), id, []*x509.Certificate{leaf, ca.root}); err != nil {
			t.Fatal(err)
		}
		write(t, dir, name+".pem", encode(leaf))
		write(t, dir, name+".id", []byte(id))
	}
}

// authority certifies any mailbox; that of the conformance suite, whose
// certificates may lie in the store as well, would not do.
type authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{key: key, root: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root of the judged " + rand.Text()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	a.root = a.sign(t, a.root, key.Public())
	return a
}

func (a authority) sign(t *testing.T, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a authority) issue(t *testing.T, public crypto.PublicKey, mailbox string, later time.Duration) *x509.Certificate {
	t.Helper()
	return a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2 + int64(later)), Subject: pkix.Name{CommonName: "Alice"}, EmailAddresses: []string{mailbox},
		NotBefore: time.Now().Add(later - 30*time.Minute), NotAfter: time.Now().Add(12 * time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}, public)
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func id(t *testing.T, dir, name string) platform.KeyID {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name+".id"))
	if err != nil {
		t.Fatal(err)
	}
	return platform.KeyID(strings.TrimSpace(string(raw)))
}

// TestDecrypt opens what was encrypted for either generation, in a process of its own.
func TestDecrypt(t *testing.T) {
	dir, store := driven(t)
	for _, name := range []string{"old", "new"} {
		chain, err := store.Find(t.Context(), id(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		key, err := store.Open(t.Context(), id(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		message, err := os.ReadFile(filepath.Join(dir, name+".sealed"))
		if err != nil {
			t.Fatal(err)
		}
		opened, err := smime.Decrypt(message, chain[0], key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name+".opened", opened.Content)
		foreign, err := os.ReadFile(filepath.Join(dir, "foreign.sealed"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := smime.Decrypt(foreign, chain[0], key); err == nil {
			t.Error("it opens what was encrypted for somebody else")
		}
	}
}

// TestClear leaves the store as it was.
func TestClear(t *testing.T) {
	dir, store := driven(t)
	for _, name := range []string{"old", "new"} {
		chain, err := store.Find(t.Context(), id(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range chain {
			if err := store.Remove(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		if err := store.Delete(t.Context(), id(t, dir, name)); err != nil {
			t.Error(err)
		}
		if _, err := store.Open(t.Context(), id(t, dir, name)); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("Open after Delete: %v", err)
		}
	}
}
