package platformtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// RequireAll is the variable that makes a missing program a failure: set to 1
// where everything is installed, so that there no test skips unseen.
const RequireAll = "SMIME_AGENT_REQUIRE"

// Need skips the test with a reason if ok is false, or fails it where
// everything must be there ([RequireAll]).
func Need(t testing.TB, what string, ok bool) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv(RequireAll) == "1":
		t.Fatalf("%s is missing, and %s=1 says that it must not be", what, RequireAll)
	default:
		t.Skipf("SKIP: %s is missing", what)
	}
}

// NeedPrograms is [Need] for programs in the path or in the sbin folders.
func NeedPrograms(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		Need(t, "program "+name, program(name) != "")
	}
}

// program finds a program, also where only root's path leads; "" if nowhere.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// NeedFile is [Need] for the first of some files; it gives its path.
func NeedFile(t testing.TB, what string, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err == nil && len(found) > 0 {
			return found[0]
		}
	}
	Need(t, what, false)
	return ""
}

// run runs a program to its end.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program(name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
