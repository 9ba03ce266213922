package platform_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMacTypes checks the types of all that is built for macOS with cgo, tests
// too, without a Mac, a C compiler or Apple's headers. What stands after "C." is
// not judged here (go/types, FakeImportC); package security has its own test.
func TestMacTypes(t *testing.T) {
	c := newMacCheck(t)
	if got := c.complaints; len(got) > 0 {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	for _, path := range []string{"smime-agent/platform", "smime-agent/platform/internal/security", "smime-agent/platform/internal/pkcs11", "github.com/keybase/go-keychain"} {
		if p := c.listed[path]; p == nil || p.Name == "" {
			t.Errorf("package %s was not looked at", path)
		}
	}
	for _, path := range []string{"smime-agent/platform/internal/security", "smime-agent/platform/internal/pkcs11"} {
		if p := c.listed[path]; p != nil && len(p.CgoFiles) == 0 {
			t.Errorf("no cgo file of %s was looked at", path)
		}
	}
	testMacPlants(t, c)
}

// testMacPlants plants what the check is for.
func testMacPlants(t *testing.T, c *macCheck) {
	for name, plant := range map[string]struct{ path, source, want string }{
		"a type error": {"smime-agent/platform/internal/security",
			"package security\nimport \"C\"\nfunc planted() string { return failed(C.kc_count(0)) }\n",
			"cannot use"},
		"a type error above cgo": {"smime-agent/platform",
			"package platform\nvar planted keychain = realKeychain{nil}.Keychain\n", "cannot use"},
		"a type error in NSS's stores": {"smime-agent/platform",
			"package platform\nvar planted nssStore = newFileStore(\"\")\n", "cannot use"},
		"a type error of the binding": {"smime-agent/platform/internal/pkcs11",
			"package pkcs11\nfunc planted(b *binding) error { return initialize(b, 1) }\n", "cannot use"},
		"a wrong call of go-keychain": {"smime-agent/platform",
			"package platform\nimport keychains \"github.com/keybase/go-keychain\"\nvar planted = keychains.AddItem(keychains.NewGenericPassword(\"service\", \"account\", nil, \"label\", \"\"))\n",
			"cannot use"},
		"a misspelt call of go-keychain": {"smime-agent/platform",
			"package platform\nimport keychains \"github.com/keybase/go-keychain\"\nvar planted = keychains.AddItems\n", "undefined: keychains.AddItems"},
	} {
		t.Run(name, func(t *testing.T) {
			found := c.check(c.listed[plant.path], plant.source)
			if len(found) == 0 || !strings.Contains(strings.Join(found, "\n"), plant.want) {
				t.Errorf("went unnoticed: %q", found)
			}
		})
	}
}

// listed is a package as `go list` tells it.
type listed struct {
	ImportPath, Dir, Name string
	GoFiles, CgoFiles     []string
	ImportMap             map[string]string
	Standard, DepOnly     bool
	Error                 *struct{ Err string }
}

// macCheck checks packages in the order of their dependencies, all from source.
type macCheck struct {
	files      *token.FileSet
	listed     map[string]*listed
	types      map[string]*types.Package
	complaints []string
}

func newMacCheck(t *testing.T) *macCheck {
	t.Helper()
	c := &macCheck{files: token.NewFileSet(), listed: map[string]*listed{}, types: map[string]*types.Package{"unsafe": types.Unsafe}}
	out := listMac(t)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &listed{}
		err := d.Decode(p)
		if errors.Is(err, io.EOF) {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath == "unsafe" || strings.HasSuffix(p.ImportPath, ".test") {
			continue // the main packages of tests are not written yet
		}
		c.listed[p.ImportPath] = p
		if p.Error != nil {
			c.complaints = append(c.complaints, p.Error.Err)
		}
		if found := c.check(p, ""); !p.Standard {
			c.complaints = append(c.complaints, found...)
		}
	}
}

// listMac runs no C compiler, since neither -export nor -compiled is asked for.
func listMac(t *testing.T) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-test",
		"-json=ImportPath,Dir,Name,GoFiles,CgoFiles,ImportMap,Standard,DepOnly,Error", "../...")
	cmd.Env = append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=1")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for macOS: %v\n%s", err, &complaint)
	}
	return out
}

// check gives what is wrong with a package, with one more file if planted is set.
func (c *macCheck) check(p *listed, planted string) []string {
	var found []string
	var parsed []*ast.File
	parse := func(name string, source any) {
		f, err := parser.ParseFile(c.files, name, source, parser.SkipObjectResolution)
		if err != nil {
			found = append(found, err.Error())
			return
		}
		parsed = append(parsed, f)
	}
	for _, name := range append(append([]string{}, p.GoFiles...), p.CgoFiles...) {
		parse(filepath.Join(p.Dir, name), nil)
	}
	if planted != "" {
		parse(filepath.Join(p.Dir, "planted_darwin.go"), planted)
	}
	config := types.Config{
		FakeImportC:      len(p.CgoFiles) > 0 || planted != "",
		IgnoreFuncBodies: p.DepOnly,
		Sizes:            types.SizesFor("gc", "arm64"),
		Importer:         importerOf{c, p},
		Error:            func(err error) { found = append(found, err.Error()) },
	}
	path, _, _ := strings.Cut(p.ImportPath, " ") // "path [for test]"
	checked, _ := config.Check(path, c.files, parsed, nil)
	if planted == "" {
		c.types[p.ImportPath] = checked
	}
	return found
}

// importerOf finds what a package imports among those checked before.
type importerOf struct {
	check *macCheck
	by    *listed
}

func (i importerOf) Import(path string) (*types.Package, error) {
	if mapped, ok := i.by.ImportMap[path]; ok {
		path = mapped
	}
	if p := i.check.types[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s was not checked before %s", path, i.by.ImportPath)
}
