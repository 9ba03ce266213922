package platform

import (
	"strings"

	"golang.org/x/text/language"
)

// locale finds the language for messages as gettext does (GNU gettext manual,
// "Locale Environment Variables"): LC_ALL before LC_MESSAGES before LANG, and
// the list in LANGUAGE before them, unless they say "C".
func locale(env func(string) string) string {
	var chosen string
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if chosen = env(name); chosen != "" {
			break
		}
	}
	if base, _, _ := strings.Cut(chosen, "."); base == "C" || base == "POSIX" {
		return "en"
	}
	for _, name := range append(strings.Split(env("LANGUAGE"), ":"), chosen) {
		if tag := languageTag(name); tag != "" {
			return tag
		}
	}
	return "en"
}

// languageTag turns a name of locale(7), language_TERRITORY.charset@modifier,
// into a BCP 47 tag; empty if it is none.
func languageTag(name string) string {
	name, modifier, _ := strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ".")
	lang, territory, _ := strings.Cut(name, "_")
	parts := []string{lang}
	switch modifier {
	case "latin":
		parts = append(parts, "Latn")
	case "cyrillic":
		parts = append(parts, "Cyrl")
	case "devanagari":
		parts = append(parts, "Deva")
	}
	if territory != "" {
		parts = append(parts, territory)
	}
	tag, err := language.Parse(strings.Join(parts, "-"))
	if err != nil || tag == language.Und {
		return ""
	}
	return tag.String()
}
