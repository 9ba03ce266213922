package platform_test

import (
	"crypto/x509"
	"errors"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/internal/wincrypt"
	"smime-agent/platform/platformtest"
)

// inStore runs something on one of the user's certificate stores.
func inStore(t *testing.T, name string, do func(*wincrypt.CertStore) error) {
	t.Helper()
	s, err := wincrypt.OpenCertStore(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(s), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestWindowsAddressBook(t *testing.T) {
	open := func(t *testing.T) platform.AddressBook {
		books, err := platform.AddressBooks(t.Context(), platform.StoreOptions{Home: platform.TempDir(t)})
		if err != nil || len(books) != 1 {
			t.Fatalf("%d address books, %v", len(books), err)
		}
		return books[0]
	}
	platformtest.TestAddressBook(t, open, platformtest.AddressBookTests{
		File: func(t *testing.T, c *x509.Certificate) {
			inStore(t, wincrypt.AddressBook, func(s *wincrypt.CertStore) error { return s.AddIssuer(c.Raw) })
			t.Cleanup(func() {
				inStore(t, wincrypt.AddressBook, func(s *wincrypt.CertStore) error { return s.Remove(c.Raw) })
			})
		},
		All: func(t *testing.T) []*x509.Certificate {
			var all []*x509.Certificate
			for _, name := range []string{wincrypt.AddressBook, wincrypt.CA} {
				inStore(t, name, func(s *wincrypt.CertStore) error {
					list, err := s.List()
					for _, f := range list {
						if c, err := x509.ParseCertificate(f.DER); err == nil {
							all = append(all, c)
						}
					}
					return err
				})
			}
			return all
		},
	})
}
