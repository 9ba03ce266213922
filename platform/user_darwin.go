package platform

import (
	"os"
	"path/filepath"
)

// locale finds the language that the person chose for the system: the first of
// AppleLanguages in the global preferences (NSGlobalDomain). launchd gives its
// jobs no LANG, so the environment says nothing.
func locale(env func(string) string) string {
	home := env("HOME")
	if !filepath.IsAbs(home) {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return "en"
		}
	}
	return firstLanguage(firstFile(filepath.Join(home, "Library", "Preferences", ".GlobalPreferences.plist")))
}
