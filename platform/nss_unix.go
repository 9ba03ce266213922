//go:build unix

package platform

import (
	"os"
	"path/filepath"
)

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
