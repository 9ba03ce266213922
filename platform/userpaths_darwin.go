package platform

import (
	"fmt"
	"os"
	"path/filepath"
)

// currentUserPaths puts what must last beside what other programs keep, and what
// a logout may take away where the system may clean up (Apple, "File System
// Programming Guide": Library).
func currentUserPaths(env func(string) string) (UserPaths, error) {
	home := env("HOME")
	if !filepath.IsAbs(home) {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return UserPaths{}, fmt.Errorf("find home folder: %w", err)
		}
	}
	return UserPaths{
		State:   filepath.Join(home, "Library", "Application Support", "smime-agent"),
		Runtime: filepath.Join(home, "Library", "Caches", "smime-agent"),
	}, nil
}
