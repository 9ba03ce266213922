package agent

import (
	"os"
	"path/filepath"
	"testing"
)

// root is the top of the module, seen from this folder.
const root = ".."

// mayImport says what each package may import of this module. A package that
// is not listed may import nothing of it, and must not exist; "*" allows all.
var mayImport = map[string][]string{
	"agent":                  {},
	"agent/enroll":           {},
	"agent/state":            {"agent/enroll"},
	"agent/control":          {"agent/enroll", "proto/control/v1"},
	"agent/smime":            {},
	"agent/oldmail":          {"agent/smime"},
	"agent/text":             {},
	"agent/status":           {"agent/enroll", "agent/text"},
	"agent/local":            {"agent/enroll", "agent/status", "platform", "proto/local/v1"},
	"agent/helper":           {"agent/enroll", "agent/smime", "agent/text", "platform"},
	"agent/config":           {"agent/text", "platform"},
	"agent/service":          {"agent/config", "agent/control", "agent/enroll", "agent/local", "agent/state", "agent/status", "agent/text", "platform"},
	"agent/e2e":              {"*"},
	"agent/e2e/*":            {"*"},
	"platform":               {"platform/internal/*"},
	"proto/control/v1":       {},
	"proto/local/v1":         {},
	"server-stub":            {"proto/control/v1", "server-stub/*"},
	"server-stub/*":          {"proto/control/v1", "server-stub/*"},
	"platform/internal/*":    {},
	"installer/macos":        {},
	"platform/platformtest":  {"platform"},
	"agent/cmd/smime-agent":  {"agent/config", "agent/enroll", "agent/local", "agent/oldmail", "agent/service", "agent/status", "agent/text", "platform"},
	"agent/cmd/smime-helper": {"agent/config", "agent/enroll", "agent/helper", "agent/local", "agent/text", "platform"},
}

// mayImportInTests adds what only _test.go files may import.
var mayImportInTests = map[string][]string{
	"agent/helper":             {"agent/local", "platform/platformtest"},
	"agent/local":              {"platform/platformtest"},
	"agent/service":            {"agent/helper", "platform/platformtest", "proto/control/v1", "server-stub/*"},
	"agent/control":            {"server-stub/*"},
	"agent/state":              {"platform/platformtest"},
	"agent/cmd/smime-agent":    {"platform/platformtest"},
	"server-stub/store":        {"platform/platformtest"}, // its disk that loses power
	"server-stub/authority":    {"platform/platformtest"}, // what must not be skipped
	"agent/cmd/smime-helper":   {"platform/platformtest"},
	"platform":                 {"platform/platformtest", "platform"},
	"platform/internal/pkcs11": {"platform/platformtest"},
}

// mayUse says who may import what is heavy, dangerous or system-dependent.
// A trailing "/*" on a user means the package and all below it.
var mayUse = map[string][]string{
	"google.golang.org/grpc":         {"agent/control", "agent/local", "proto/*", "server-stub/*", "agent/e2e/*"},
	"go.etcd.io/bbolt":               {"agent/state", "server-stub/*", "agent/e2e/*"},
	"github.com/kardianos/service":   {"agent/service"},
	"github.com/keybase/go-keychain": {"platform/*"},
	"golang.org/x/sys":               {"platform/*"},
	"github.com/jackc/pgx":           {"server-stub/store/*"},
	"github.com/pressly/goose":       {"server-stub/store/postgres"},
	"os/exec":                        {"platform/*", "agent/e2e/*", "server-stub/store/pgtest"},                       // the last runs a database for tests
	"syscall":                        {"platform/*", "agent/e2e/*", "agent/local", "server-stub", "server-stub/site"}, // the last three for names of errors and signals, and for the owner of a file, only
	"unsafe":                         {"platform/internal/*"},
	"C":                              {"platform/internal/*"},
	"github.com/miekg/pkcs11":        {"platform/internal/*"},
	"github.com/spf13/cobra":         {"agent/cmd/*", "server-stub"},
	"github.com/zmap/zlint":          {"server-stub/*"},
	"github.com/zmap/zcrypto":        {"server-stub/*"},
	"net":                            {"platform/*", "agent/local", "agent/control", "server-stub/*", "agent/e2e/*", "agent/config", "agent/service", "agent/cmd/*"},
}

// longestChain caps the import chain inside the module, in packages.
const longestChain = 5

// Size caps, in lines. The exceptions name their reason.
const (
	maxFile      = 500
	maxFunction  = 60
	maxInterface = 4 // own methods; embedded interfaces are not counted
	maxPackage   = 4000
)

var fileExceptions = map[string]string{}

var functionExceptions = map[string]string{}

var packageExceptions = map[string]string{
	"platform":     "three systems side by side; no build has more than one of them",
	"agent/enroll": "the checks of a chain are a seventh of it; apart from it they would be the only thing of ours that the heart imports",
}

func TestArchitecture(t *testing.T) {
	tree, err := readTree(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range tree.judge() {
		t.Error(complaint)
	}
}

// TestArchitectureCatches plants one bad file of each kind, for systems other
// than this one too: a guard that cannot fail guards nothing.
func TestArchitectureCatches(t *testing.T) {
	cases := []struct{ name, path, source, want string }{
		{"import upward", "agent/enroll/bad_windows.go", "package enroll\nimport _ \"smime-agent/platform\"\n", "agent/enroll may not import platform"},
		{"heavy outside", "agent/status/bad_darwin.go", "package status\nimport _ \"google.golang.org/grpc/codes\"\n", "agent/status may not use google.golang.org/grpc"},
		{"cgo above", "platform/bad_darwin.go", "package platform\nimport \"C\"\n", "platform may not use C"},
		{"second comment", "agent/enroll/bad.go", "// Package enroll again.\npackage enroll\n", "package comments"},
		{"unknown package", "agent/util/bad.go", "// Package util is.\npackage util\n", "agent/util is not in the map"},
		{"long function", "agent/enroll/long.go", "package enroll\nfunc long() {\n" + repeat("\t_ = 1\n", 70) + "}\n", "long has"},
		{"long file", "agent/enroll/file.go", "package enroll\n" + repeat("// x\n", 501), "lines"},
		{"fat interface", "agent/enroll/fat.go", "package enroll\ntype fat interface {\n A()\n B()\n C()\n D()\n E()\n}\n", "fat has 5 methods"},
		{"os switch", "agent/enroll/goos.go", "package enroll\nimport \"runtime\"\nvar x = runtime.GOOS == \"linux\"\n", "runtime.GOOS"},
		{"clock in the heart", "agent/enroll/now.go", "package enroll\nimport \"time\"\nvar x = time.Now()\n", "time.Now"},
		{"bad name", "agent/common/bad.go", "// Package common is.\npackage common\n", "agent/common"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tree, err := readTree(root)
			if err != nil {
				t.Fatal(err)
			}
			if err := tree.add(c.path, []byte(c.source)); err != nil {
				t.Fatal(err)
			}
			if !contains(tree.judge(), c.want) {
				t.Errorf("planted %s went unnoticed", c.path)
			}
		})
	}
}

func TestTopLevel(t *testing.T) {
	allowed := map[string]bool{
		"agent": true, "proto": true, "platform": true, "installer": true, "server-stub": true, "docs": true,
		"go.mod": true, "go.sum": true, "Makefile": true, "README.md": true, "README.zh-CN.md": true,
		// Made by make, ignored by git.
		"bin": true, "dist": true,
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !allowed[name] && filepath.Base(name)[0] != '.' {
			t.Errorf("%s: the top level is fixed", name)
		}
	}
}
