package platform

import "path/filepath"

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
