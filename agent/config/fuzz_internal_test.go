package config

import (
	"strings"
	"testing"
)

// FuzzYAML: whatever stands in a file, the reader ends without a crash, names
// each setting once, and speaks of each fault.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{"server: a.example:1\n", "a: [1, 2.5, true, ~]\n", "a: |\n  x\n  y\n", "a: {b: c}\n", "- a\n", "a: &x b\nc: *x\n",
		"<<: *a\n", "? a\n: b\n", "---\na: b\n...\n---\nc: d\n", "a: !!str b\n", "%YAML 1.2\n---\na: b\n", "[[[[[[", "a: 'b", "\x00", "a: \"\\uD800\"\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		entries, problems, broken := readYAML(data, "f", FromFile, true)
		if broken && (len(entries) > 0 || len(problems) == 0) {
			t.Errorf("a broken file with %d entries and %d problems", len(entries), len(problems))
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.Name] {
				t.Errorf("%q twice", e.Name)
			}
			seen[e.Name] = true
			for _, s := range Table() {
				var out Settings
				if fault := s.put(&out, e); fault != nil && (fault.wrong == "" || fault.cure == "") {
					t.Errorf("%s: a fault without words for %+v", s.Name, e)
				}
			}
		}
		for _, p := range problems {
			if p.Wrong == "" || p.Cure == "" || !strings.HasPrefix(p.Where, "f") {
				t.Errorf("%+v", p)
			}
		}
	})
}

// FuzzPin: a pin has one spelling.
func FuzzPin(f *testing.F) {
	f.Add("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=")
	f.Add("sha256/\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, s string) {
		if pin, ok := parsePin(s); ok && pin.String() != s {
			t.Errorf("%q is read as %q", s, pin)
		}
	})
}

func TestDefaultsAreGood(t *testing.T) {
	names := map[string]bool{}
	for _, s := range Table() {
		if s.Default != "" {
			if f := s.put(new(Settings), Entry{Name: s.Name, Text: s.Default}); f != nil {
				t.Errorf("the default of %s: %s", s.Name, f.wrong)
			}
		}
		if names[s.Name] || len(s.Name) > maxName || strings.ToLower(s.Name) != s.Name {
			t.Errorf("bad or double name %q", s.Name)
		}
		names[s.Name] = true
		if s.Since == "" || !strings.HasSuffix(s.Help, ".") || !strings.HasSuffix(s.HelpZH, "。") || s.put == nil {
			t.Errorf("%s is not fully declared", s.Name)
		}
		if s.Type == Hidden && s.Visible {
			t.Errorf("the secret %s is visible", s.Name)
		}
		for _, o := range s.Options {
			if f := s.put(new(Settings), Entry{Name: s.Name, Text: o}); f != nil {
				t.Errorf("option %q of %s: %s", o, s.Name, f.wrong)
			}
		}
	}
}
