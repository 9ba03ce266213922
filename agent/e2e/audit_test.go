//go:build linux

package e2e_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// auditLine is a line of audit.log, by the names of docs/audit.md.
type auditLine map[string]any

func (l auditLine) text(field string) string { s, _ := l[field].(string); return s }

// audit reads the audit trail; a line that is no JSON object fails the test.
func (w *world) audit() []auditLine {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.Dir, "agent", "log", "audit.log"))
	w.must(err)
	var all []auditLine
	for text := range strings.Lines(string(raw)) {
		var l auditLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			w.t.Errorf("audit line %q: %v", text, err)
			continue
		}
		all = append(all, l)
	}
	return all
}

// events counts the audit trail by event.
func (w *world) events() map[string]int {
	w.t.Helper()
	counts := map[string]int{}
	for _, l := range w.audit() {
		counts[l.text("event")]++
	}
	return counts
}

// checkAudit holds every line against the documentation.
func (w *world) checkAudit() {
	w.t.Helper()
	fields, events := documented(w.t)
	lines := w.audit()
	if len(lines) == 0 {
		w.t.Error("the audit trail is empty")
	}
	seen := map[string]bool{}
	for _, l := range lines {
		for name := range l {
			if !fields[name] {
				w.t.Errorf("audit field %q is not documented", name)
			}
		}
		for _, name := range []string{"time", "event_id", "event", "outcome", "severity", "product", "version"} {
			if l.text(name) == "" {
				w.t.Errorf("audit line without %s: %v", name, l)
			}
		}
		if !events[l.text("event")] {
			w.t.Errorf("audit event %q is not documented", l.text("event"))
		}
		if _, err := time.Parse(time.RFC3339Nano, l.text("time")); err != nil {
			w.t.Errorf("audit time: %v", err)
		}
		if id := l.text("event_id"); seen[id] || !uuid7.MatchString(id) {
			w.t.Errorf("event ID %q is no UUID version 7, or came twice", id)
		} else {
			seen[id] = true
		}
		if s := l.text("outcome"); s != "success" && s != "failure" {
			w.t.Errorf("outcome %q", s)
		}
	}
}

var uuid7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// documented reads the tables of docs/audit.md: the words in code marks in the
// first cells.
func documented(t *testing.T) (fields, events map[string]bool) {
	t.Helper()
	raw, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "\n## Fields")
	before, after, ok2 := strings.Cut(rest, "\n## Events")
	if !ok || !ok2 {
		t.Fatal("docs/audit.md has no tables of fields and events")
	}
	return firstCells(before), firstCells(after)
}

func firstCells(text string) map[string]bool {
	words := map[string]bool{}
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`([a-z_-]+)`").FindAllStringSubmatch(cells[1], -1) {
				words[m[1]] = true
			}
		}
	}
	return words
}

// TestAuditIsDocumented compares docs/audit.md with the code, both ways.
func TestAuditIsDocumented(t *testing.T) {
	fields, events := documented(t)
	coded := map[string]bool{}
	maps.Copy(coded, eventConstants(t, "../enroll/types.go"))
	maps.Copy(coded, eventConstants(t, "../service/audit.go"))
	compare(t, "event", coded, events)
	compare(t, "field", jsonTags(t, "../service/audit.go", "auditLine"), fields)
}

func compare(t *testing.T, what string, code, docs map[string]bool) {
	t.Helper()
	if len(code) == 0 || !maps.Equal(code, docs) {
		t.Errorf("%ss in the code: %v\nin docs/audit.md: %v", what, slices.Sorted(maps.Keys(code)), slices.Sorted(maps.Keys(docs)))
	}
}

func parsed(t *testing.T, path string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// eventConstants are the values of the constants that name events.
func eventConstants(t *testing.T, path string) map[string]bool {
	t.Helper()
	values := map[string]bool{}
	ast.Inspect(parsed(t, path), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(strings.ToLower(spec.Names[0].Name), "event") {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if value, err := strconv.Unquote(literal.Value); err == nil {
				values[value] = true
			}
		}
		return true
	})
	return values
}

// jsonTags are the names of a struct's fields in JSON.
func jsonTags(t *testing.T, path, name string) map[string]bool {
	t.Helper()
	tags := map[string]bool{}
	ast.Inspect(parsed(t, path), func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				if raw, err := strconv.Unquote(f.Tag.Value); err == nil {
					word, _, _ := strings.Cut(reflect.StructTag(raw).Get("json"), ",")
					tags[word] = true
				}
			}
		}
		return false
	})
	return tags
}
