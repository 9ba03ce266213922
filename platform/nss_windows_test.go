package platform_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
)

// plantThunderbird registers a Thunderbird of this user in a folder of its own,
// whose softoken has that content, and gives a home folder with a profile.
func plantThunderbird(t *testing.T, softoken []byte) (home string) {
	t.Helper()
	root := platform.TempDir(t)
	if err := os.WriteFile(filepath.Join(root, "softokn3.dll"), softoken, 0o600); err != nil {
		t.Fatal(err)
	}
	const brand = `Software\Mozilla\Mozilla Thunderbird Test`
	for _, path := range []string{brand, brand + `\0.0 (x64 en-US)`, brand + `\0.0 (x64 en-US)\Main`} {
		k, _, err := registry.CreateKey(registry.CURRENT_USER, path, registry.SET_VALUE|registry.WOW64_64KEY)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "Main") {
			err = k.SetStringValue("PathToExe", filepath.Join(root, "thunderbird.exe"))
		}
		if err := errors.Join(err, k.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the last of them first
			if err := registry.DeleteKey(registry.CURRENT_USER, path); err != nil {
				t.Error(err)
			}
		})
	}
	home = platform.TempDir(t)
	profiles := filepath.Join(home, "AppData", "Roaming", "Thunderbird")
	if err := os.MkdirAll(filepath.Join(profiles, "Profiles", "abcd.default"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"profiles.ini":                   "[Profile0]\nIsRelative=1\nPath=Profiles/abcd.default\n",
		"Profiles/abcd.default/prefs.js": "user_pref(\"mail.accountmanager.accounts\", \"account1\");\nuser_pref(\"mail.account.account1.identities\", \"id1\");\nuser_pref(\"mail.identity.id1.useremail\", \"mei.lin@corp.example\");\n",
	} {
		if err := os.WriteFile(filepath.Join(profiles, filepath.FromSlash(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// TestThunderbirdFound: an installed Thunderbird is found by what its installer
// wrote down. One whose library cannot be used keeps no other store away, says
// why, and its accounts are found all the same: they are reported as taking
// certificates from another store.
func TestThunderbirdFound(t *testing.T) {
	other := make([]byte, 0x200)
	copy(other, "MZ")
	binary.LittleEndian.PutUint32(other[0x3C:], 0x40)
	copy(other[0x40:], "PE\x00\x00\x4C\x01")                 // for 32-bit x86, without a section
	other[0x54], other[0x56], other[0x57] = 0xE0, 0x02, 0x20 // a DLL with an optional header
	other[0x58], other[0x59], other[0xB4] = 0x0B, 0x01, 16
	for name, c := range map[string]struct {
		softoken []byte
		want     error
		says     string
	}{
		"no library":       {[]byte("no library"), nil, "softokn3.dll"},
		"other processors": {other, platform.ErrUnsupported, "32-bit x86"},
	} {
		t.Run(name, func(t *testing.T) {
			home := plantThunderbird(t, c.softoken)
			list, err := platform.Stores(t.Context(), platform.StoreOptions{Home: home})
			if err == nil || !strings.Contains(err.Error(), "nss:abcd.default") || !strings.Contains(err.Error(), c.says) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Stores: %v, want %v about nss:abcd.default", err, c.want)
			}
			var names []string
			for _, s := range list {
				names = append(names, s.Info().Name)
			}
			if len(names) < 2 || !slices.Contains(names, "windows") || names[len(names)-1] != "file" || slices.Contains(names, "nss:abcd.default") {
				t.Errorf("stores %v", names)
			}
			for _, p := range platform.MailPrograms(platform.MailOptions{Home: home}) {
				if p.Name() != "thunderbird" {
					continue
				}
				accounts, err := p.Accounts(t.Context(), "mei.lin@corp.example")
				if err != nil || len(accounts) != 1 || accounts[0].Info().Store != "nss:abcd.default" {
					t.Errorf("accounts %v, %v", accounts, err)
				}
			}
		})
	}
}

// TestThunderbirdGone: a profile that outlived its Thunderbird is reported, and
// nobody is told that partners' certificates cannot be filed in it.
func TestThunderbirdGone(t *testing.T) {
	home := platform.TempDir(t)
	profiles := filepath.Join(home, "AppData", "Roaming", "Thunderbird")
	if err := os.MkdirAll(filepath.Join(profiles, "x.default"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profiles, "profiles.ini"), []byte("[Profile0]\nIsRelative=1\nPath=x.default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.Stores(t.Context(), platform.StoreOptions{Home: home}); !errors.Is(err, platform.ErrNotFound) || !strings.Contains(err.Error(), "nss:x.default") {
		t.Errorf("Stores: %v, want ErrNotFound about nss:x.default", err)
	}
	if books, err := platform.AddressBooks(t.Context(), platform.StoreOptions{Home: home}); err != nil || len(books) != 1 {
		t.Errorf("%d address books, %v", len(books), err)
	}
}
