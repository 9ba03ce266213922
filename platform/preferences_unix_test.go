//go:build linux || darwin

package platform

import (
	"testing"

	"howett.net/plist"
)

func TestFirstLanguage(t *testing.T) {
	for _, c := range []struct {
		languages any
		want      string
	}{
		{[]string{"zh-Hans-CN", "en-CN"}, "zh-Hans-CN"},
		{[]string{"??", "de-DE"}, "de-DE"},
		{[]string{}, "en"},
		{"de", "en"},
		{nil, "en"},
	} {
		global := map[string]any{"AppleLocale": "fr_FR"}
		if c.languages != nil {
			global["AppleLanguages"] = c.languages
		}
		for _, format := range []int{plist.BinaryFormat, plist.XMLFormat} {
			data, err := plist.Marshal(global, format)
			if err != nil {
				t.Fatal(err)
			}
			if got := firstLanguage(string(data)); got != c.want {
				t.Errorf("%v became %q, want %q", c.languages, got, c.want)
			}
		}
	}
	if got := firstLanguage(""); got != "en" {
		t.Errorf("no preferences became %q", got)
	}
}

func TestPlatformUUID(t *testing.T) {
	const head = `<?xml version="1.0" encoding="UTF-8"?><plist version="1.0">`
	const uuid = "564D2B4E-0C1A-5B7E-9E5D-1F2A3B4C5D6E"
	for registry, want := range map[string]string{
		head + "<array><dict><key>IOObjectClass</key><string>IOPlatformExpertDevice</string><key>IOPlatformUUID</key><string>" + uuid +
			"</string><key>clock-frequency</key><data>AOH1BQ==</data></dict></array></plist>": uuid,
		head + "<array></array></plist>":              "",
		head + "<array><dict></dict></array></plist>": "",
		head + "<dict></dict></plist>":                "",
		"":                                            "",
		"ioreg: error: can't obtain registry iterator.\n": "",
	} {
		if got := platformUUID([]byte(registry)); got != want {
			t.Errorf("%s gave %q, want %q", registry, got, want)
		}
	}
}
