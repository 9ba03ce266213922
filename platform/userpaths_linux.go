package platform

import (
	"fmt"
	"os"
	"path/filepath"
)

// currentUserPaths follows the XDG Base Directory Specification 0.8: relative
// paths are to be ignored, and only XDG_RUNTIME_DIR has no default.
func currentUserPaths(env func(string) string) (UserPaths, error) {
	state := env("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home := env("HOME")
		if !filepath.IsAbs(home) {
			var err error
			if home, err = os.UserHomeDir(); err != nil {
				return UserPaths{}, fmt.Errorf("find home folder: %w", err)
			}
		}
		state = filepath.Join(home, ".local", "state")
	}
	p := UserPaths{State: filepath.Join(state, "smime-agent")}
	p.Runtime = p.State
	if r := env("XDG_RUNTIME_DIR"); filepath.IsAbs(r) {
		p.Runtime = filepath.Join(r, "smime-agent")
	}
	return p, nil
}
