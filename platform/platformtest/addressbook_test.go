package platformtest_test

import (
	"crypto/x509"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestMemoryAddressBook(t *testing.T) {
	for _, keys := range []bool{false, true} {
		b := &platformtest.AddressBook{}
		o := platformtest.AddressBookTests{
			File: func(_ *testing.T, c *x509.Certificate) { b.File(c) },
			All:  func(*testing.T) []*x509.Certificate { return b.All() },
		}
		if keys {
			o.GiveKey = func(_ *testing.T, c *x509.Certificate) { b.GiveKey(c) }
		}
		platformtest.TestAddressBook(t, func(*testing.T) platform.AddressBook { return b }, o)
	}
}
