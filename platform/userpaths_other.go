//go:build !linux && !darwin

package platform

import (
	"fmt"
	"os"
	"path/filepath"
)

// currentUserPaths takes the folder that the system keeps for what a program can
// do without: %LocalAppData%, ~/Library/Caches.
func currentUserPaths(func(string) string) (UserPaths, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return UserPaths{}, fmt.Errorf("find the user's folder: %w", err)
	}
	dir = filepath.Join(dir, "smime-agent")
	return UserPaths{State: dir, Runtime: dir}, nil
}
