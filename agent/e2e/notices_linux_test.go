package e2e_test

import (
	"debug/buildinfo"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform/platformtest"
)

// judgeNotices compares a package's notices with what the linker says is in its
// programs, which are in the folder of that name where packages are laid out.
func judgeNotices(t *testing.T, system, notices string) {
	t.Helper()
	suffix := map[string]string{"windows": ".exe"}[system]
	programs := []string{"smime-agent", "smime-helper"}
	if system == "linux-central" {
		programs = []string{"server-stub"}
	}
	for _, program := range programs {
		path := filepath.Join(filepath.Dir(built(t, ".deb")), system, program+suffix)
		info, err := buildinfo.ReadFile(path)
		must(t, err)
		if len(info.Deps) < 10 {
			t.Fatalf("%s has %d modules in it", path, len(info.Deps))
		}
		for _, m := range info.Deps {
			if !strings.Contains(strings.ReplaceAll(notices, "\r", ""), "\n"+m.Path+" "+m.Version+"\n\n") {
				t.Errorf("%s for %s has %s %s in it, and the notices do not say so", program, system, m.Path, m.Version)
			}
		}
		traced := true
		for _, s := range info.Settings {
			traced = traced && (s.Key != "-tags" || s.Value != "grpcnotrace")
		}
		if traced {
			t.Errorf("%s for %s is built with the tracing that has the linker keep what nobody calls", program, system)
		}
	}
	if !strings.Contains(notices, "Copyright 2009 The Go Authors") {
		t.Error("the notices have no word of Go's own license")
	}
}

// TestNotices: what is passed on goes with its license.
func TestNotices(t *testing.T) {
	platformtest.NeedPrograms(t, "dpkg-deb")
	for name, layout := range map[string]string{"smime-agent": "linux", "smime-central": "linux-central"} {
		dir := t.TempDir()
		output(t, "dpkg-deb", "--extract", builtOf(t, name, ".deb"), dir)
		judgeNotices(t, layout, read(filepath.Join(dir, "usr/share/doc", name, "copyright")))
	}
}
