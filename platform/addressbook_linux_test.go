//go:build cgo

package platform_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func nssBook(t *testing.T, n platformtest.NSS) platform.AddressBook {
	t.Helper()
	books, err := platform.AddressBooks(t.Context(), platform.StoreOptions{Home: n.Home})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(books, func(b platform.AddressBook) bool { return b.Name() == "nss:default" })
	if i < 0 {
		t.Fatalf("no address book nss:default among %d", len(books))
	}
	return books[i]
}

func certutil(t *testing.T, n platformtest.NSS, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "certutil", append(args, "-d", "sql:"+n.Dir, "-f", n.PasswordFile)...).CombinedOutput()
	if err != nil {
		t.Fatalf("certutil %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// everything lists all certificates as certutil gives them.
func everything(t *testing.T, n platformtest.NSS) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for line := range strings.Lines(certutil(t, n, "-L")) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.Count(line[i:], ",") != 2 || strings.HasPrefix(line, "SSL") {
			continue
		}
		raw := []byte(certutil(t, n, "-L", "-a", "-n", strings.TrimSpace(line[:i])))
		for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
	}
	return all
}

func TestNSSAddressBook(t *testing.T) {
	for name, password := range map[string]string{"no password": "", "a password": "secret"} {
		t.Run(name, func(t *testing.T) {
			n := platformtest.NSSDir(t, password)
			platformtest.TestAddressBook(t, func(t *testing.T) platform.AddressBook { return nssBook(t, n) }, platformtest.AddressBookTests{
				File: func(t *testing.T, c *x509.Certificate) {
					path := filepath.Join(t.TempDir(), "own.pem")
					if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
						t.Fatal(err)
					}
					certutil(t, n, "-A", "-n", "my friend", "-t", ",,", "-i", path)
				},
				All: func(t *testing.T) []*x509.Certificate { return everything(t, n) },
			})
		})
	}
}

// TestNSSAddressBookKeepsOwn: a certificate that came as somebody's, and then
// got its key, is never taken away: the key would be useless.
func TestNSSAddressBookKeepsOwn(t *testing.T) {
	n := platformtest.NSSDir(t, "")
	store := nssAt(t, n.Home, "")
	key, err := store.Create(t.Context(), platformtest.NewID(t), platform.KeySpec{Algorithm: platform.RSA2048, Sign: true, Decrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.Public().(*rsa.PublicKey)
	c := platformtest.NewAuthority(t).PartnerFor(t, platformtest.Mailbox, public)
	b := nssBook(t, n)
	if err := b.Put(t.Context(), []*x509.Certificate{c}); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), []*x509.Certificate{c}); err != nil {
		t.Fatal(err)
	}
	if all := everything(t, n); len(all) != 1 || !all[0].Equal(c) {
		t.Errorf("%d certificates are left", len(all))
	}
}
