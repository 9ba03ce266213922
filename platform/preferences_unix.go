//go:build linux || darwin

package platform

import (
	"golang.org/x/text/language"
	"howett.net/plist"
)

// What macOS says in property lists. The readers are for both systems so that
// the tests run on either.

// firstLanguage reads the global preferences; "en" if they say nothing.
func firstLanguage(preferences string) string {
	var global struct {
		Languages []string `plist:"AppleLanguages"`
	}
	if _, err := plist.Unmarshal([]byte(preferences), &global); err != nil {
		return "en"
	}
	for _, name := range global.Languages {
		if tag, err := language.Parse(name); err == nil && tag != language.Und {
			return tag.String()
		}
	}
	return "en"
}

// platformUUID reads the IOPlatformUUID out of what ioreg(8) prints: an array of
// dictionaries, one for each entry found. Empty if it is not there.
func platformUUID(registry []byte) string {
	var devices []struct {
		UUID string `plist:"IOPlatformUUID"`
	}
	if _, err := plist.Unmarshal(registry, &devices); err != nil || len(devices) == 0 {
		return ""
	}
	return devices[0].UUID
}
