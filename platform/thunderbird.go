package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// thunderbird is one way in which Thunderbird is installed: where it keeps its
// profiles, and where its libraries lie. A profile is opened only with the
// softoken of its own Thunderbird: a password set by a newer NSS is refused as
// wrong by an older one.
type thunderbird struct {
	profiles  string
	libraries []string
	// family is the name of the Store's package, without its version; empty for
	// others.
	family string
}

// windowsThunderbirds are Mozilla's own build and that of the Store, whose
// package redirects its roaming folder. Not run.
func windowsThunderbirds(appData, localAppData string) []thunderbird {
	list := []thunderbird{{profiles: filepath.Join(appData, "Thunderbird")}}
	packages := filepath.Join(localAppData, "Packages")
	entries, err := os.ReadDir(packages)
	if err != nil {
		return list // no Store, or not ours to see
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "MozillaThunderbird") {
			list = append(list, thunderbird{
				profiles: filepath.Join(packages, e.Name(), "LocalCache", "Roaming", "Thunderbird"), family: e.Name(),
			})
		}
	}
	return list
}

// macThunderbirds: not run. The libraries lie beside the program in its bundle
// (package-manifest.in of comm-central).
func macThunderbirds(home string) []thunderbird {
	const bundle = "Applications/Thunderbird.app/Contents/MacOS"
	return []thunderbird{{
		profiles:  filepath.Join(home, "Library", "Thunderbird"),
		libraries: []string{"/" + bundle, filepath.Join(home, bundle)},
	}}
}

// thunderbirdProfile is a profile's folder with the name of its store.
type thunderbirdProfile struct {
	dir, store string
	// of is the installation to which it belongs.
	of thunderbird
}

// findThunderbirdProfiles lists the profiles of all installations. Two of one
// name have their whole folders in the names of their stores.
func findThunderbirdProfiles(installed []thunderbird) ([]thunderbirdProfile, error) {
	var list []thunderbirdProfile
	var failed []error
	for _, t := range installed {
		dirs, err := thunderbirdProfiles(t.profiles)
		if err != nil {
			failed = append(failed, err)
		}
		for _, dir := range dirs {
			name := "nss:" + filepath.Base(dir)
			if slices.ContainsFunc(list, func(p thunderbirdProfile) bool { return p.store == name }) {
				name = "nss:" + dir
			}
			list = append(list, thunderbirdProfile{dir: dir, store: name, of: t})
		}
	}
	return list, errors.Join(failed...)
}

// thunderbirdProfiles reads the profile folders out of profiles.ini, the one that
// an installation starts with first. A missing file means no profiles. Folders
// that are gone are left out.
func thunderbirdProfiles(root string) ([]string, error) {
	sections, err := readINI(filepath.Join(root, "profiles.ini"))
	if err != nil {
		return nil, err
	}
	installs, err := readINI(filepath.Join(root, "installs.ini"))
	if err != nil {
		return nil, err
	}
	var dirs []string
	first := map[string]bool{}
	for _, s := range append(sections, installs...) {
		if path := s.values["Default"]; len(path) > 1 { // in a profile's own section it is "1"
			first[resolved(root, path)] = true
		}
	}
	for _, s := range sections {
		if dir, ok := s.profile(root); ok {
			dirs = append(dirs, dir)
		}
	}
	slices.SortStableFunc(dirs, func(a, b string) int {
		switch {
		case first[a] == first[b]:
			return 0
		case first[a]:
			return -1
		}
		return 1
	})
	return dirs, nil
}

type iniSection struct {
	name   string
	values map[string]string
}

// readINI reads one of Mozilla's files; none is no error.
func readINI(path string) ([]iniSection, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Thunderbird's profiles: %w", denied(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxINI+1))
	if err != nil {
		return nil, fmt.Errorf("read Thunderbird's profiles: %w", err)
	}
	if len(data) > maxINI {
		return nil, fmt.Errorf("read Thunderbird's profiles: %s is longer than %d bytes", path, maxINI)
	}
	return parseINI(data), nil
}

// maxINI bounds a file of which each profile takes some hundred bytes.
const maxINI = 1 << 20

// parseINI takes what it understands, as Mozilla's reader does.
func parseINI(data []byte) []iniSection {
	var all []iniSection
	for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		line := strings.TrimSpace(text)
		if strings.HasPrefix(line, "[") {
			all = append(all, iniSection{name: strings.Trim(line, "[]"), values: map[string]string{}})
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && len(all) > 0 {
			all[len(all)-1].values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return all
}

// profile gives the folder if the section describes a profile that is there.
func (s iniSection) profile(root string) (string, bool) {
	dir := filepath.FromSlash(s.values["Path"])
	if !strings.HasPrefix(s.name, "Profile") || dir == "" {
		return "", false
	}
	if s.values["IsRelative"] == "1" {
		dir = filepath.Join(root, dir)
	}
	info, err := os.Stat(dir)
	return filepath.Clean(dir), filepath.IsAbs(dir) && err == nil && info.IsDir()
}

func resolved(root, path string) string {
	path = filepath.FromSlash(path)
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(root, path)
}

// thunderbirdProgram is Thunderbird with all its profiles.
type thunderbirdProgram struct {
	installed []thunderbird
}

var _ MailProgram = thunderbirdProgram{}

func (thunderbirdProgram) Name() string { return "thunderbird" }

// Accounts finds the identities with the mailbox's address in all profiles.
func (p thunderbirdProgram) Accounts(ctx context.Context, mailbox string) ([]MailAccount, error) {
	profiles, err := findThunderbirdProfiles(p.installed)
	failed := []error{err}
	var found []MailAccount
	for _, profile := range profiles {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		prefs, err := readPrefs(profile.dir)
		if err != nil {
			failed = append(failed, fmt.Errorf("Thunderbird profile %s: %w", filepath.Base(profile.dir), err)) //nolint:staticcheck // a name
			continue
		}
		for _, id := range prefs.identities() {
			if address := prefs.text("mail.identity." + id + ".useremail"); strings.EqualFold(address, mailbox) {
				found = append(found, &thunderbirdAccount{profile: profile, identity: id, mailbox: address})
			}
		}
	}
	return found, errors.Join(failed...)
}
