package platform

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDBKeyVectors: what was computed apart from this code, and equals what
// Thunderbird itself writes.
func TestDBKeyVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/nss-dbkey.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Valid []struct {
			PEM string `json:"certificate_pem"`
			Key string `json:"dbkey_base64"`
		} `json:"valid"`
		Invalid []struct {
			Title string `json:"title"`
			Key   string `json:"dbkey_base64"`
		} `json:"invalid"`
	}
	if err := json.Unmarshal(raw, &vectors); err != nil || len(vectors.Valid) == 0 || len(vectors.Invalid) == 0 {
		t.Fatal(err)
	}
	for i, v := range vectors.Valid {
		block, _ := pem.Decode([]byte(v.PEM))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := dbKey(RefTo(c)); got != v.Key {
			t.Errorf("%d: %s", i, got)
		}
		ref, err := parseDBKey(" " + v.Key[:10] + "\n" + v.Key[10:])
		if err != nil || !ref.Same(RefTo(c)) || !RefTo(c).Same(ref) {
			t.Errorf("%d read back: %v, %v", i, ref, err)
		}
	}
	for _, v := range vectors.Invalid {
		if ref, err := parseDBKey(v.Key); err == nil {
			t.Errorf("%s: %v", v.Title, ref)
		}
	}
}

// TestThunderbirdFolders: where the other systems keep profiles, looked at here
// with folders of that form.
func TestThunderbirdFolders(t *testing.T) {
	root := TempDir(t)
	store := filepath.Join(root, "local", "Packages", "MozillaThunderbird_x", "LocalCache", "Roaming", "Thunderbird")
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range append(windowsThunderbirds(filepath.Join(root, "roaming"), filepath.Join(root, "local")), macThunderbirds(filepath.Join(root, "home"))...) {
		got = append(got, i.profiles)
	}
	want := []string{filepath.Join(root, "roaming", "Thunderbird"), store, filepath.Join(root, "home", "Library", "Thunderbird")}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestThunderbirdDefaultFirst: the profile with which an installation starts comes
// before the others.
func TestThunderbirdDefaultFirst(t *testing.T) {
	root := TempDir(t)
	for _, dir := range []string{"a.old", "b.used"} {
		if err := os.MkdirAll(filepath.Join(root, "Profiles", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"profiles.ini": "[Profile0]\nIsRelative=1\nPath=Profiles/a.old\nDefault=1\n[Profile1]\nIsRelative=1\nPath=Profiles/b.used\n",
		"installs.ini": "[D78BF5DD33499EC2]\nDefault=Profiles/b.used\nLocked=1\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dirs, err := thunderbirdProfiles(root)
	if want := []string{filepath.Join(root, "Profiles/b.used"), filepath.Join(root, "Profiles/a.old")}; err != nil || !slices.Equal(dirs, want) {
		t.Errorf("%v, %v", dirs, err)
	}
}

// TestThunderbirdLastRun: of several installations the one that opened the
// profile last comes first, and the rest stays in its order.
func TestThunderbirdLastRun(t *testing.T) {
	profile := TempDir(t)
	at := func(folder, name string) string { return filepath.Join(profile, folder, name) }
	all := []string{at("release", "softokn3"), at("esr/Contents/MacOS", "softokn3"), at("Beta", "softokn3")}
	for last, want := range map[string][]string{
		"":                              all,
		at("gone", ""):                  all,
		at("beta", ""):                  {all[2], all[0], all[1]},
		at("esr/Contents", "Resources"): {all[1], all[0], all[2]},
	} {
		text := "[Compatibility]\r\nLastVersion=153.0_1/1\r\nLastPlatformDir=" + last + "\r\nLastAppDir=/elsewhere\r\n"
		if err := os.WriteFile(filepath.Join(profile, "compatibility.ini"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastRunFirst(all, profile); !slices.Equal(got, want) {
			t.Errorf("last run in %q: %v, want %v", last, got, want)
		}
	}
	if got := lastRunFirst(all, at("none", "")); !slices.Equal(got, all) {
		t.Errorf("a profile that was never opened: %v", got)
	}
}
