package platform_test

import (
	"os"
	"os/exec"
	"testing"
)

// missing skips a test for want of something outside, or fails it where
// everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SMIME_AGENT_REQUIRE") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, name)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
}
