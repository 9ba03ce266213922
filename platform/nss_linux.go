package platform

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

// libraryFolders are those of the machine's architectures.
var libraryFolders = globbed{folder: "/usr/lib", pattern: "*-linux-gnu"}

// globbed remembers what of a folder fits a pattern for as long as nothing comes or
// goes there: stores are listed at each task, and the folder has many entries.
type globbed struct {
	folder, pattern string

	mu      sync.Mutex
	changed time.Time // of the folder, when it was read
	matches []string
}

func (g *globbed) list() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	info, err := os.Stat(g.folder)
	if err != nil {
		return nil
	}
	if at := info.ModTime(); g.matches == nil || !at.Equal(g.changed) {
		g.matches, err = filepath.Glob(filepath.Join(g.folder, g.pattern))
		g.changed = at
		if err != nil || time.Since(at) < 2*time.Second { // it may change again within one tick of its clock
			g.changed = time.Time{}
		}
	}
	return g.matches
}

// systemSoftokens are the places of the distribution's own softoken.
func systemSoftokens() []string {
	const name = "libsoftokn3.so"
	folders := libraryFolders.list()
	found := firstFiles(name, folders...)
	found = append(found, firstFiles("nss/"+name, folders...)...)
	return append(found, firstFiles(name, "/usr/lib64", "/usr/lib")...)
}

// thunderbirds lists the ways. Only the first was run; the folders of Flatpak
// and Snap are from their documentation.
func thunderbirds(home string) []thunderbird {
	const flatpak = "flatpak/app/org.mozilla.Thunderbird/current/active/files/lib/thunderbird"
	return []thunderbird{
		{profiles: filepath.Join(home, ".thunderbird"),
			libraries: []string{"/usr/lib/thunderbird", "/usr/lib64/thunderbird", "/opt/thunderbird"}},
		{profiles: filepath.Join(home, ".var/app/org.mozilla.Thunderbird/.thunderbird"),
			libraries: []string{filepath.Join("/var/lib", flatpak), filepath.Join(home, ".local/share", flatpak)}},
		{profiles: filepath.Join(home, "snap/thunderbird/common/.thunderbird"),
			libraries: []string{"/snap/thunderbird/current/usr/lib/thunderbird"}},
	}
}

// softokens gives the installed softokens of this Thunderbird.
func (t thunderbird) softokens() []string { return firstFiles("libsoftokn3.so", t.libraries...) }

// siblingsOf lists the libraries beside a Mozilla program's softoken that it
// does not find by itself, in the order in which they need one another.
func siblingsOf(softoken string) []string {
	var found []string
	for _, name := range []string{"libnspr4.so", "libplc4.so", "libplds4.so", "libnssutil3.so", "libmozsqlite3.so"} {
		found = append(found, firstFiles(name, filepath.Dir(softoken))...)
	}
	return found
}
