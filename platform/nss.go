package platform

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// lastRunFirst puts the softoken of the Thunderbird that has last opened a
// profile before those of others: an older one may not be able to open it.
// Thunderbird keeps its folder in compatibility.ini (toolkit/xre/nsAppRunner.cpp);
// on macOS that is the folder beside the one of the libraries.
func lastRunFirst(softokens []string, profile string) []string {
	sections, err := readINI(filepath.Join(profile, "compatibility.ini"))
	if err != nil {
		return softokens // what cannot be read is no better hint than none
	}
	var last string
	for _, s := range sections {
		if s.name == "Compatibility" {
			last = filepath.Clean(s.values["LastPlatformDir"])
		}
	}
	own := func(path string) bool {
		folder := filepath.Dir(path)
		return strings.EqualFold(folder, last) || filepath.Base(last) == "Resources" && filepath.Dir(folder) == filepath.Dir(last)
	}
	sorted := slices.Clone(softokens)
	slices.SortStableFunc(sorted, func(a, b string) int {
		switch {
		case own(a) == own(b):
			return 0
		case own(a):
			return -1
		}
		return 1
	})
	return sorted
}
