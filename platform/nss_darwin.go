package platform

import "path/filepath"

// softokens gives the installed softokens of this Thunderbird.
func (t thunderbird) softokens() []string { return firstFiles("libsoftokn3.dylib", t.libraries...) }

// siblingsOf lists the libraries that the softoken names by their bare names
// (@rpath, Mozilla's bug 1770484): to dyld such a name means the library of that
// name that is loaded already (apple-oss-distributions/dyld, Loader::getLoader).
// Builds before that name them beside the running program (@executable_path),
// where ours has none, and cannot be used. Not run.
func siblingsOf(softoken string) []string {
	var found []string
	for _, name := range []string{"libmozglue.dylib", "libnspr4.dylib", "libplc4.dylib", "libplds4.dylib",
		"libnssutil3.dylib", "libmozsqlite3.dylib", "libnss3.dylib"} {
		found = append(found, firstFiles(name, filepath.Dir(softoken))...)
	}
	return found
}
