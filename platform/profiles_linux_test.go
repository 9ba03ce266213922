package platform

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const profilesINI = "\ufeff; a comment\r\n" + `[Install0123]
Default=abcd.default-release
Locked=1

[Profile2]
Name=gone
IsRelative=1
Path=gone.default

[Profile1]
Name=elsewhere
IsRelative=0
Path=ELSEWHERE

[Profile0]
Name=default-release
IsRelative=1
Path = abcd.default-release
Default=1

[Profile3]
Name=no folder

[General]
StartWithLastProfile=1
Path=abcd.default-release
`

func TestThunderbirdProfiles(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	mine := filepath.Join(root, "abcd.default-release")
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := thunderbirdProfiles(root); err != nil || len(got) != 0 {
		t.Errorf("without profiles.ini: %v, %v", got, err)
	}
	text := []byte(strings.ReplaceAll(profilesINI, "ELSEWHERE", elsewhere))
	if err := os.WriteFile(filepath.Join(root, "profiles.ini"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := thunderbirdProfiles(root)
	if want := []string{mine, elsewhere}; err != nil || !slices.Equal(got, want) {
		t.Errorf("profiles %v, %v; want %v", got, err, want)
	}
}

func TestThunderbirdProfilesUnreadable(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "profiles.ini"), 0o700); err != nil { // reading a folder fails, for root too
		t.Fatal(err)
	}
	if got, err := thunderbirdProfiles(root); err == nil {
		t.Errorf("an unreadable profiles.ini gave %v", got)
	}
}

func TestThunderbirdWithoutSoftoken(t *testing.T) {
	home := t.TempDir()
	root := filepath.Join(home, "snap/thunderbird/common/.thunderbird")
	if err := os.MkdirAll(filepath.Join(root, "x.default"), 0o700); err != nil {
		t.Fatal(err)
	}
	ini := "[Profile0]\nIsRelative=1\nPath=x.default\n"
	if err := os.WriteFile(filepath.Join(root, "profiles.ini"), []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Stores(t.Context(), StoreOptions{Home: home})
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUnsupported) {
		t.Errorf("a profile without its softoken: %v", err)
	}
	if slices.ContainsFunc(list, func(s Store) bool { return s.Info().Name == "nss:x.default" }) {
		t.Error("a profile without its softoken was opened")
	}
}

func TestNSSInitQuotes(t *testing.T) {
	got := nssDatabase{dir: `/home/o'neil\x`}.init()
	if want := `configDir='sql:/home/o\'neil\\x' `; got[:len(want)] != want {
		t.Errorf("init string %s", got)
	}
}
