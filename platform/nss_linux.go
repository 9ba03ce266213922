package platform

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// nssDatabase is a folder with cert9.db and key4.db.
type nssDatabase struct {
	dir string
}

// exists says that there is a key database.
func (d nssDatabase) exists() bool {
	_, err := os.Stat(filepath.Join(d.dir, "key4.db"))
	return err == nil
}

// files are the key database and that of certificates.
func (d nssDatabase) files() []string {
	return []string{filepath.Join(d.dir, "key4.db"), filepath.Join(d.dir, "cert9.db")}
}

// prepare makes the folder before the first key; NSS makes the files, with
// mode 0600, but not the folder. Looking makes nothing.
func (d nssDatabase) prepare(fresh bool) error {
	if d.exists() {
		return nil
	}
	if !fresh {
		return fmt.Errorf("%w in %s", errNoDatabase, d.dir)
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make NSS folder: %w", denied(err))
	}
	return nil
}

// errNoDatabase is an NSS folder without a database: nothing is in it yet.
var errNoDatabase = fmt.Errorf("no NSS database: %w", ErrNotFound)

// init is what NSS's softoken wants at C_Initialize (nss/lib/util/utilpars.c).
func (d nssDatabase) init() string {
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(d.dir)
	return "configDir='sql:" + quoted + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags= " +
		"updatedir='' updateCertPrefix='' updateKeyPrefix='' updateid='' updateTokenDescription=''"
}

// nssTokenLabel is the softoken's name for the slot of keys and certificates.
const nssTokenLabel = "NSS Certificate DB"

// systemSoftokens are the places of the distribution's own softoken.
func systemSoftokens() []string {
	const name = "libsoftokn3.so"
	found := firstFiles(name, "/usr/lib/*-linux-gnu")
	found = append(found, firstFiles("nss/"+name, "/usr/lib/*-linux-gnu")...)
	return append(found, firstFiles(name, "/usr/lib64", "/usr/lib")...)
}

// thunderbirds lists the ways. Only the first was run; the folders of Flatpak
// and Snap are from their documentation.
func thunderbirds(home string) []thunderbird {
	const flatpak = "flatpak/app/org.mozilla.Thunderbird/current/active/files/lib/thunderbird"
	return []thunderbird{
		{filepath.Join(home, ".thunderbird"),
			[]string{"/usr/lib/thunderbird", "/usr/lib64/thunderbird", "/opt/thunderbird"}},
		{filepath.Join(home, ".var/app/org.mozilla.Thunderbird/.thunderbird"),
			[]string{filepath.Join("/var/lib", flatpak), filepath.Join(home, ".local/share", flatpak)}},
		{filepath.Join(home, "snap/thunderbird/common/.thunderbird"),
			[]string{"/snap/thunderbird/current/usr/lib/thunderbird"}},
	}
}

// softokens gives the installed softokens of this Thunderbird.
func (t thunderbird) softokens() []string { return firstFiles("libsoftokn3.so", t.libraries...) }

// firstFiles lists the files of that name in the folders, which may be patterns.
// The name is no part of the pattern, and patterns end with their wildcard:
// behind one, a glob reads whole folders even for a plain name, and a library
// folder has thousands of entries.
func firstFiles(name string, folders ...string) []string {
	var found []string
	for _, f := range folders {
		matches, err := filepath.Glob(f)
		if err != nil {
			continue // a home folder that is no pattern has no such file either
		}
		for _, folder := range matches {
			path := filepath.Join(folder, name)
			if _, err := os.Lstat(path); err == nil {
				found = append(found, path)
			}
		}
	}
	return found
}

// siblingsOf lists the libraries beside a Mozilla program's softoken that it
// does not find by itself, in the order in which they need one another.
func siblingsOf(softoken string) []string {
	var found []string
	for _, name := range []string{"libnspr4.so", "libplc4.so", "libplds4.so", "libnssutil3.so", "libmozsqlite3.so"} {
		found = append(found, firstFiles(name, filepath.Dir(softoken))...)
	}
	return found
}
