package platform

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/windows/registry"
)

// softokens gives the installed softokens of this Thunderbird.
func (t thunderbird) softokens() []string {
	folders := installedThunderbirds()
	if t.family != "" {
		folders = packageFolders(t.family)
	}
	var found []string
	for _, folder := range folders {
		path := filepath.Join(folder, "softokn3.dll")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	return found
}

// siblingsOf has none: Windows looks beside the library itself.
func siblingsOf(string) []string { return nil }

// view is one of the places where installers write.
type view struct {
	root   registry.Key
	access uint32
}

// views are the machine's before the user's, and what 64-bit programs see before
// what 32-bit programs see: a Thunderbird for other processors comes last.
func views() []view {
	var list []view
	for _, access := range []uint32{registry.WOW64_64KEY, registry.WOW64_32KEY} {
		for _, root := range []registry.Key{registry.LOCAL_MACHINE, registry.CURRENT_USER} {
			list = append(list, view{root, access})
		}
	}
	return list
}

// keys lists the keys below one; none where it cannot be read.
func (v view) keys(path string) []string {
	k, err := registry.OpenKey(v.root, path, registry.ENUMERATE_SUB_KEYS|v.access)
	if err != nil {
		return nil
	}
	defer k.Close() //nolint:errcheck // it was only read
	names, _ := k.ReadSubKeyNames(-1)
	return names
}

// text is a value's text; empty where there is none.
func (v view) text(path, name string) string {
	k, err := registry.OpenKey(v.root, path, registry.QUERY_VALUE|v.access)
	if err != nil {
		return ""
	}
	defer k.Close() //nolint:errcheck // it was only read
	text, _, _ := k.GetStringValue(name)
	return strings.Trim(text, `"`)
}

// installedThunderbirds are the folders that Thunderbird's installer has written
// down (mail/installer/windows/nsis in comm-central): below Software\Mozilla a
// key for each branding and below it one for each version, and the path of the
// program as Windows itself looks it up.
func installedThunderbirds() []string {
	var programs []string
	for _, v := range views() {
		const mozilla = `Software\Mozilla`
		for _, brand := range v.keys(mozilla) {
			if !strings.Contains(brand, "Thunderbird") {
				continue
			}
			for _, version := range v.keys(mozilla + `\` + brand) {
				programs = append(programs, v.text(mozilla+`\`+brand+`\`+version+`\Main`, "PathToExe"))
			}
		}
		programs = append(programs, v.text(`Software\Microsoft\Windows\CurrentVersion\App Paths\thunderbird.exe`, ""))
	}
	var folders []string
	for _, program := range programs {
		if filepath.IsAbs(program) {
			folders = append(folders, filepath.Dir(program))
		}
	}
	return folders
}

// packageFolders are the folders of a package from the Store, whose full names
// have version and processor between the two halves of the family's. The layout
// is that of Mozilla's packager (python/mozbuild/mozbuild/repackaging/msix.py).
// Not run.
func packageFolders(family string) []string {
	name, publisher, ok := strings.Cut(family, "_")
	if !ok {
		return nil
	}
	v := view{registry.CURRENT_USER, registry.WOW64_64KEY}
	const packages = `Software\Classes\Local Settings\Software\Microsoft\Windows\CurrentVersion\AppModel\Repository\Packages`
	var folders []string
	for _, full := range v.keys(packages) {
		if !strings.HasPrefix(full, name+"_") || !strings.HasSuffix(full, "__"+publisher) {
			continue
		}
		root := v.text(packages+`\`+full, "PackageRootFolder")
		inside, err := os.ReadDir(filepath.Join(root, "VFS", "ProgramFiles"))
		if root == "" || err != nil {
			continue
		}
		for _, e := range inside {
			if strings.HasSuffix(e.Name(), " Package Root") {
				folders = append(folders, filepath.Join(root, "VFS", "ProgramFiles", e.Name()))
			}
		}
	}
	return folders
}
