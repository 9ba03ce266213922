package agent

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "smime-agent"

// sourceFile is one parsed Go file, of whatever system.
type sourceFile struct {
	path      string // slashed, from the top of the module
	lines     int
	generated bool
	test      bool
	syntax    *ast.File
}

func (f sourceFile) pkg() string { return path.Dir(f.path) }

// sourceTree is every Go file of the module. It is read by parsing, not through
// the go command, whose answer depends on the system and may come from a cache.
type sourceTree struct {
	fset  *token.FileSet
	files []sourceFile
}

func readTree(dir string) (*sourceTree, error) {
	t := &sourceTree{fset: token.NewFileSet()}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != dir && (strings.HasPrefix(name, ".") || name == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		source, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return t.add(filepath.ToSlash(rel), source)
	})
	return t, err
}

func (t *sourceTree) add(name string, source []byte) error {
	syntax, err := parser.ParseFile(t.fset, name, source, parser.ParseComments)
	if err != nil {
		return err
	}
	t.files = append(t.files, sourceFile{
		path: name, syntax: syntax,
		lines:     strings.Count(string(source), "\n"),
		generated: ast.IsGenerated(syntax),
		test:      strings.HasSuffix(name, "_test.go"),
	})
	return nil
}

func (t *sourceTree) judge() []string {
	var all []string
	for _, f := range t.files {
		all = append(all, judgeImports(f)...)
		if !f.generated {
			all = append(all, t.judgeSize(f)...)
			all = append(all, judgeCalls(f)...)
		}
	}
	all = append(all, t.judgePackages()...)
	all = append(all, t.judgeChains()...)
	return append(all, t.judgeRules()...)
}

func imports(f sourceFile) []string {
	var all []string
	for _, i := range f.syntax.Imports {
		if p, err := strconv.Unquote(i.Path.Value); err == nil {
			all = append(all, p)
		}
	}
	return all
}

func judgeImports(f sourceFile) []string {
	var all []string
	for _, imported := range imports(f) {
		if own, ok := strings.CutPrefix(imported, module+"/"); ok {
			if !allowedImport(f, own) {
				all = append(all, fmt.Sprintf("%s: %s may not import %s", f.path, f.pkg(), own))
			}
			continue
		}
		for heavy, users := range mayUse {
			if (imported == heavy || strings.HasPrefix(imported, heavy+"/")) && heavyMatters(heavy, imported, f) && !matches(users, f.pkg()) {
				all = append(all, fmt.Sprintf("%s: %s may not use %s", f.path, f.pkg(), heavy))
			}
		}
	}
	return all
}

// heavyMatters leaves tests and net's harmless children (net/url, net/mail) alone.
func heavyMatters(heavy, imported string, f sourceFile) bool {
	if f.test && heavy != "C" && heavy != "unsafe" {
		return false
	}
	if heavy == "unsafe" && f.generated {
		return false
	}
	return heavy != "net" || imported == "net"
}

func allowedImport(f sourceFile, own string) bool {
	allowed := rulesFor(mayImport, f.pkg())
	if f.test {
		allowed = append(slices.Clone(allowed), rulesFor(mayImportInTests, f.pkg())...)
		allowed = append(allowed, f.pkg())
	}
	return slices.Contains(allowed, "*") || matches(allowed, own)
}

func rulesFor(rules map[string][]string, pkg string) []string {
	if r, ok := rules[pkg]; ok {
		return r
	}
	for pattern, r := range rules {
		if strings.HasSuffix(pattern, "/*") && matches([]string{pattern}, pkg) {
			return r
		}
	}
	return nil
}

func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if base, ok := strings.CutSuffix(p, "/*"); ok {
			return pkg == base || strings.HasPrefix(pkg, base+"/")
		}
		return p == pkg
	})
}

func (t *sourceTree) judgeSize(f sourceFile) []string {
	var all []string
	if f.lines > maxFile && fileExceptions[f.path] == "" {
		all = append(all, fmt.Sprintf("%s: %d lines, at most %d", f.path, f.lines, maxFile))
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			length := t.fset.Position(n.End()).Line - t.fset.Position(n.Pos()).Line + 1
			limit := maxFunction
			if f.test {
				limit = 2 * maxFunction // tables of cases are data
			}
			if length > limit && functionExceptions[f.path+":"+n.Name.Name] == "" {
				all = append(all, fmt.Sprintf("%s: %s has %d lines, at most %d", f.path, n.Name.Name, length, limit))
			}
		case *ast.TypeSpec:
			if i, ok := n.Type.(*ast.InterfaceType); ok && !f.test {
				if own := ownMethods(i); own > maxInterface {
					all = append(all, fmt.Sprintf("%s: %s has %d methods, at most %d", f.path, n.Name.Name, own, maxInterface))
				}
			}
		}
		return true
	})
	return all
}

func ownMethods(i *ast.InterfaceType) int {
	own := 0
	for _, m := range i.Methods.List {
		own += len(m.Names)
	}
	return own
}

// judgeCalls forbids what lint cannot see on files of other systems.
func judgeCalls(f sourceFile) []string {
	var all []string
	forbidden := map[string]bool{"runtime.GOOS": f.pkg() != "platform" && !f.test, "time.Now": f.pkg() == "agent/enroll" && !f.test}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && forbidden[x.Name+"."+s.Sel.Name] {
				all = append(all, fmt.Sprintf("%s: %s.%s is not for here", f.path, x.Name, s.Sel.Name))
			}
		}
		return true
	})
	return all
}

func (t *sourceTree) judgePackages() []string {
	comments, lines := map[string]int{}, map[string]int{}
	for _, f := range t.files {
		if f.test {
			continue
		}
		comments[f.pkg()] += 0
		if f.syntax.Doc != nil && !f.generated {
			comments[f.pkg()]++
		}
		if !f.generated {
			lines[f.pkg()] += f.lines
		}
	}
	var all []string
	for pkg, n := range comments {
		if n != 1 && !strings.HasPrefix(pkg, "proto/") {
			all = append(all, fmt.Sprintf("%s: %d package comments, want exactly one", pkg, n))
		}
		if rulesFor(mayImport, pkg) == nil {
			all = append(all, pkg+" is not in the map of packages")
		}
		if lines[pkg] > maxPackage && packageExceptions[pkg] == "" {
			all = append(all, fmt.Sprintf("%s: %d lines, at most %d", pkg, lines[pkg], maxPackage))
		}
	}
	return all
}

// judgeChains measures the longest import chain inside the module.
func (t *sourceTree) judgeChains() []string {
	edges := map[string]map[string]bool{}
	for _, f := range t.files {
		if f.test || matches([]string{"agent/e2e/*"}, f.pkg()) {
			continue
		}
		for _, imported := range imports(f) {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				if edges[f.pkg()] == nil {
					edges[f.pkg()] = map[string]bool{}
				}
				edges[f.pkg()][own] = true
			}
		}
	}
	var all []string
	for _, pkg := range slices.Sorted(maps.Keys(edges)) {
		if chain := longest(edges, pkg, 0); len(chain) > longestChain {
			all = append(all, fmt.Sprintf("import chain of %d packages, at most %d: %s", len(chain), longestChain, strings.Join(chain, " → ")))
		}
	}
	return all
}

func longest(edges map[string]map[string]bool, pkg string, depth int) []string {
	best := []string{}
	if depth < 20 { // a cycle does not compile; this only keeps a planted one from hanging
		for next := range edges[pkg] {
			if c := longest(edges, next, depth+1); len(c) > len(best) {
				best = c
			}
		}
	}
	return append([]string{pkg}, best...)
}

// judgeRules fails when a rule speaks of a package that is gone.
func (t *sourceTree) judgeRules() []string {
	there := map[string]bool{}
	for _, f := range t.files {
		there[f.pkg()] = true
	}
	var all []string
	check := func(rule, pkg string) {
		if base := strings.TrimSuffix(pkg, "/*"); pkg != "*" && !there[base] && !slices.ContainsFunc(slices.Collect(maps.Keys(there)), func(p string) bool { return strings.HasPrefix(p, base+"/") }) {
			all = append(all, fmt.Sprintf("%s names %s, which is gone", rule, pkg))
		}
	}
	for pkg, targets := range mayImport {
		check("mayImport", pkg)
		for _, target := range targets {
			check("mayImport", target)
		}
	}
	for _, users := range mayUse {
		for _, pkg := range users {
			check("mayUse", pkg)
		}
	}
	return all
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

func contains(complaints []string, want string) bool {
	return slices.ContainsFunc(complaints, func(c string) bool { return strings.Contains(c, want) })
}
