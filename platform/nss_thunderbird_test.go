//go:build windows || (darwin && cgo)

package platform_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestThunderbirdStore uses the softoken of an installed Thunderbird, in whose
// folder SMIME_TEST_THUNDERBIRD points; SMIME_TEST_PROFILE names a folder that
// shall keep the database for other programs to look at. The machine of these
// tests has no such Thunderbird; docs/mail-programs.md says what was run by hand.
func TestThunderbirdStore(t *testing.T) {
	folder := os.Getenv("SMIME_TEST_THUNDERBIRD")
	if folder == "" {
		t.Skip("SKIP: SMIME_TEST_THUNDERBIRD names no folder with a Thunderbird's libraries")
	}
	softoken := platformtest.NeedFile(t, "Thunderbird's softoken", filepath.Join(folder, "softokn3.dll"), filepath.Join(folder, "libsoftokn3.dylib"))
	scratch, err := os.MkdirTemp("", "smime-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(scratch) }) // the library has the files open for a moment more
	dir := cmp.Or(os.Getenv("SMIME_TEST_PROFILE"), filepath.Join(scratch, "用户 o'neil.default"))
	password := os.Getenv("SMIME_TEST_PASSWORD")
	open := func(t *testing.T) platform.Store {
		s, err := platform.OpenNSS(dir, softoken, func(context.Context, string, bool) (string, error) {
			if password == "" {
				return "", errors.New("nobody was to be asked")
			}
			return password, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	platformtest.TestStore(t, open, platformtest.StoreTests{PSS: true, OAEP: true, Agree: true})
	t.Run("address book", func(t *testing.T) {
		platformtest.TestAddressBook(t, func(t *testing.T) platform.AddressBook { return platform.AddressBookOf(open(t)) },
			platformtest.AddressBookTests{
				File: func(t *testing.T, c *x509.Certificate) {
					if err := platform.FileForeign(t.Context(), open(t), c); err != nil {
						t.Fatal(err)
					}
				},
				All: func(t *testing.T) []*x509.Certificate {
					all, err := platform.AllFiled(t.Context(), open(t))
					if err != nil {
						t.Fatal(err)
					}
					return all
				},
			})
	})
}
