package platform_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestKeychainAddressBook(t *testing.T) {
	m := &platform.MemoryKeychain{}
	list := filepath.Join(platform.TempDir(t), "of", "partners.json")
	platformtest.TestAddressBook(t, func(*testing.T) platform.AddressBook { return m.AddressBook(list) }, platformtest.AddressBookTests{
		File: func(_ *testing.T, c *x509.Certificate) { m.File(c.Raw) },
		All: func(t *testing.T) []*x509.Certificate {
			var all []*x509.Certificate
			for _, der := range m.Filed() {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, c)
			}
			return all
		},
	})
	if m.Open != 0 {
		t.Errorf("%d keychains were left open", m.Open)
	}
	if err := os.WriteFile(list, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := platformtest.NewAuthority(t).Partner(t, "erin@partner.example")
	if err := m.AddressBook(list).Put(t.Context(), []*x509.Certificate{c}); err == nil {
		t.Error("a list that cannot be read was overwritten")
	}
}
