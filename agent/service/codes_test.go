package service

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"smime-agent/agent/status"
)

// words gives the values of all constants of a type in a package's files, with
// the names that they have there.
func words(t *testing.T, dir, kind string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || kindOf(spec.Type) != kind {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				word, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				found[word] = spec.Names[0].Name
			}
			return true
		})
	}
	return found
}

func kindOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// TestEveryCodeIsDefined holds the codes of all packages to one space of words:
// what any of them can say, the report can show and the runbook explains.
func TestEveryCodeIsDefined(t *testing.T) {
	defined := map[string]bool{}
	for _, d := range status.Definitions() {
		defined[string(d.Code)] = true
	}
	said := map[string]string{}
	for _, dir := range []string{".", "../control", "../enroll", "../helper", "../local", "../state", "../status"} {
		maps.Copy(said, words(t, dir, "Code"))
	}
	if len(words(t, "../control", "Code")) < 10 || len(said) < 45 {
		t.Fatalf("only %d codes found", len(said))
	}
	for word, name := range said {
		if !defined[word] {
			t.Errorf("%s (%s) has no definition in agent/status", word, name)
		}
	}
	for word := range defined {
		if said[word] == "" {
			t.Errorf("nobody can say %s", word)
		}
	}
}

// TestEveryEventIsDocumented holds docs/audit.md to the events that are filed.
func TestEveryEventIsDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(raw), "## Events")
	if !ok {
		t.Fatal("docs/audit.md has no table of events")
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(table, -1) {
		for _, word := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			documented = append(documented, word[1])
		}
	}
	filed := words(t, "../enroll", "EventCode")
	maps.Copy(filed, words(t, ".", "EventCode"))
	if len(filed) < 25 {
		t.Fatalf("only %d events found", len(filed))
	}
	for word := range filed {
		if !slices.Contains(documented, word) {
			t.Errorf("%s is not in docs/audit.md", word)
		}
	}
	for _, word := range documented {
		if filed[word] == "" {
			t.Errorf("docs/audit.md has %s, which nobody files", word)
		}
	}
}
