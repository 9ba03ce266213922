package text

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// sentences gives the strings of a language by name; plural forms fold into one.
func sentences(t *testing.T, tag string) map[string]string {
	t.Helper()
	raw, err := catalogs.ReadFile(tag + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatalf("%s: %v", tag, err)
	}
	flat := map[string]string{}
	flatten(tree, "", flat)
	return flat
}

func flatten(tree map[string]any, path string, into map[string]string) {
	for name, v := range tree {
		switch v := v.(type) {
		case map[string]any:
			flatten(v, path+name+".", into)
		case string:
			if name == "one" {
				continue // English only; Chinese has one form
			}
			into[path+strings.TrimSuffix(name, ".other")] = v
		}
	}
}

var placeholder = regexp.MustCompile(`\{\{\s*\.(\w+)\s*\}\}`)

func placeholders(s string) []string {
	var names []string
	for _, m := range placeholder.FindAllStringSubmatch(s, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestCatalogsAreComplete(t *testing.T) {
	en, zh := sentences(t, English), sentences(t, Chinese)
	if len(en) < 150 {
		t.Fatalf("only %d texts", len(en))
	}
	for name, s := range en {
		other, ok := zh[name]
		if !ok {
			t.Errorf("%s: no Chinese", name)
			continue
		}
		if a, b := placeholders(s), placeholders(other); !slices.Equal(a, b) {
			t.Errorf("%s: placeholders %v and %v", name, a, b)
		}
	}
	for name := range zh {
		if _, ok := en[name]; !ok {
			t.Errorf("%s: no English", name)
		}
	}
}

func TestEveryTextIsTranslated(t *testing.T) {
	han := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) })
	}
	for name, s := range sentences(t, English) {
		if strings.TrimSpace(s) == "" || han(s) {
			t.Errorf("en %s: %q", name, s)
		}
	}
	for name, s := range sentences(t, Chinese) {
		if !han(s) {
			t.Errorf("zh-CN %s is not translated: %q", name, s)
		}
	}
}

func TestSentencesHaveNoHoles(t *testing.T) {
	for _, tag := range []string{English, Chinese} {
		spoken := For(tag)
		for name := range sentences(t, tag) {
			code, part, ok := strings.Cut(strings.TrimPrefix(name, "condition."), ".")
			if !strings.HasPrefix(name, "condition.") || !ok || part != "text" {
				continue
			}
			e := spoken.Explain(code, About{})
			for _, s := range []string{e.Title, e.Text, e.Cure} {
				if s == "" || strings.Contains(s, "<no value>") || strings.Contains(s, "{{") {
					t.Errorf("%s %s: %q", tag, code, s)
				}
			}
		}
	}
}

func TestFor(t *testing.T) {
	want := map[string]string{
		"zh": Chinese, "zh-CN": Chinese, "zh_CN.UTF-8": Chinese, "zh-Hans": Chinese, "zh-Hans-HK": Chinese,
		"zh-SG": Chinese, "zh_SG": Chinese, "zh-TW": English, "zh-Hant": English, "en": English,
		"en_US.UTF-8": English, "de": English, "C": English, "C.UTF-8": English, "POSIX": English, "": English,
		"sr@latin": English, "\x00": English, "zh\xff": English,
	}
	for locale, tag := range want {
		if got := For(locale).Tag(); got != tag {
			t.Errorf("For(%q) = %s, want %s", locale, got, tag)
		}
	}
}

func TestPromptSaysWhoAsksForWhat(t *testing.T) {
	q := Question{
		Organization: "Contoso", Contact: "it@contoso.example", Mailbox: "li.wei@contoso.example",
		Reason: "first", Note: map[string]string{"en": "A note.", "zh-CN": "说明。"}, PostponementsLeft: 2,
	}
	for tag, note := range map[string]string{English: "A note.", Chinese: "说明。"} {
		d := For(tag).Prompt(q)
		for _, s := range []string{q.Organization, q.Contact, q.Mailbox, note, "2"} {
			if !strings.Contains(d.Body, s) {
				t.Errorf("%s: no %q in:\n%s", tag, s, d.Body)
			}
		}
		if d.Yes == "" || d.Later == "" || d.No == "" || !strings.Contains(d.Title, "Contoso") {
			t.Errorf("%s: %+v", tag, d)
		}
	}
}

func TestPromptDiffersByReason(t *testing.T) {
	for _, tag := range []string{English, Chinese} {
		seen := map[string]string{}
		for _, reason := range []string{"first", "renewal-due", "removed", "revoked"} {
			body := For(tag).Prompt(Question{Mailbox: "a@b.example", Reason: reason}).Body
			if before, ok := seen[body]; ok {
				t.Errorf("%s: %s and %s read the same", tag, before, reason)
			}
			seen[body] = reason
		}
	}
}

func TestLastPostponementTakesTheButtonAway(t *testing.T) {
	d := For(English).Prompt(Question{Mailbox: "a@b.example"})
	if d.Later != "" || !strings.Contains(d.Body, "no longer be put off") {
		t.Errorf("%+v", d)
	}
	one := For(English).Prompt(Question{PostponementsLeft: 1})
	if !strings.Contains(one.Body, "1 more time.") {
		t.Errorf("no singular in:\n%s", one.Body)
	}
}

func TestNoteFallsBack(t *testing.T) {
	zh, en := For(Chinese), For(English)
	cases := []struct {
		text *Text
		note map[string]string
		want string
	}{
		{zh, map[string]string{"zh-Hans": "中", "en": "E"}, "中"},
		{zh, map[string]string{"en-GB": "E", "de": "D"}, "E"},
		{en, map[string]string{"zh-CN": "中", "de": "D"}, "D"},
		{en, map[string]string{"en-US": "E", "de": "D"}, "E"},
		{en, nil, ""},
	}
	for _, c := range cases {
		if got := c.text.pick(c.note); got != c.want {
			t.Errorf("%s %v: %q", c.text.Tag(), c.note, got)
		}
	}
}

func TestNoticesAndSecrets(t *testing.T) {
	for _, tag := range []string{English, Chinese} {
		for _, code := range []string{"enrolling", "enrolled", "renewed", "refused", "revoked", "ending"} {
			m := For(tag).Notice(Notice{Code: code, Mailbox: "a@b.example"})
			if m.Title == "" || strings.HasPrefix(m.Title, "notice.") || !strings.Contains(m.Body, "a@b.example") {
				t.Errorf("%s %s: %+v", tag, code, m)
			}
		}
		for _, store := range []string{"nss:default", "nss:tb-abcd.default", "pkcs11:CARD", "windows", "keychain", "file", "other"} {
			once, again := For(tag).Secret(store, false), For(tag).Secret(store, true)
			if once.Body == again.Body || !strings.Contains(once.Body, For(tag).StoreName(store)) {
				t.Errorf("%s %s: %+v", tag, store, again)
			}
		}
	}
}

func TestUnknownWordsComeBack(t *testing.T) {
	zh := For(Chinese)
	if zh.Word("state", "active") != "使用中" || zh.Word("state", "new-state") != "new-state" || zh.Word("state", "") != "" {
		t.Error("words")
	}
	if e := zh.Explain("new-code", About{}); e.Title != "new-code" || !strings.Contains(e.Text, "new-code") {
		t.Errorf("%+v", e)
	}
}

func FuzzFor(f *testing.F) {
	f.Add("zh_CN.UTF-8")
	f.Fuzz(func(t *testing.T, locale string) {
		if tag := For(locale).Tag(); tag != English && tag != Chinese {
			t.Error(tag)
		}
	})
}

// TestProgramsAsk: people are told beforehand what the system will ask, and only
// where it will.
func TestProgramsAsk(t *testing.T) {
	for tag, words := range map[string]string{English: "Always Allow", Chinese: "始终允许"} {
		spoken := For(tag)
		for _, asks := range []bool{true, false} {
			if body := spoken.Prompt(Question{Mailbox: "a@b.example", ProgramsAsk: asks}).Body; strings.Contains(body, words) != asks {
				t.Errorf("%s: asks %v: %s", tag, asks, body)
			}
			for code, good := range map[string]bool{"enrolled": true, "renewed": true, "enrolling": true, "refused": false, "revoked": false} {
				if body := spoken.Notice(Notice{Code: code, ProgramsAsk: asks}).Body; strings.Contains(body, words) != (asks && good) {
					t.Errorf("%s: %s, asks %v: %s", tag, code, asks, body)
				}
			}
		}
	}
}

func TestPlacesAreFilled(t *testing.T) {
	data := map[string]any{"A": "{{.B}}", "B": 7, "Other": "x"}
	for s, want := range map[string]string{
		"":                      "",
		"plain {{ text }}":      "plain {{ text }}",
		"{{.A}}{{.B}}!":         "{{.B}}7!", // what fills a place is not read again
		"{{.Missing}} and {{.B": "<no value> and ",
	} {
		if got := fill(s, data); got != want {
			t.Errorf("fill(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestFormsOfNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0 checks failed.", 1: "1 check failed.", 2: "2 checks failed."} {
		if got := For("en").Count("status.doctorbad", n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	if got := For("zh-CN").Count("status.doctorbad", 1); got != "有 1 项检查未通过。" {
		t.Errorf("zh-CN: %q", got)
	}
}
