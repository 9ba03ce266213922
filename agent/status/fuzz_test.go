package status

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"smime-agent/agent/enroll"
)

// FuzzReport: a report of a service of another version, or of a broken one, is
// shown in both languages, and drives no terminal.
func FuzzReport(f *testing.F) {
	good, err := json.Marshal(Build(facts(nil), []enroll.Enrollment{credential(nil)}, now))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"credentials":[{"mailbox":"\u001b[2J","state":"tomorrow"}],"conditions":[{"code":"new","detail":"\u009b"}],"severity":"odd"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r Report
		if json.Unmarshal(raw, &r) != nil {
			return
		}
		for _, locale := range []string{"en", "zh-CN"} {
			var page bytes.Buffer
			if err := Text(&page, r, Options{Locale: locale, Width: 80}); err != nil {
				t.Error(err)
			}
			if strings.ContainsAny(page.String(), "\x1b\u009b\x07\x08\r") {
				t.Errorf("%q", page.String())
			}
		}
		_ = r.For("uid:1000").ExitCode()
	})
}
