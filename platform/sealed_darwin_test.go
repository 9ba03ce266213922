package platform_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform"
)

// sealedInKeychain lets Apple's own tool try to take the keys out. It must fail,
// and its failure must not be about something else.
func sealedInKeychain(t *testing.T, _ platform.KeyID) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "keys.p12")
	said, err := exec.CommandContext(t.Context(), "/usr/bin/security", "export", "-t", "privKeys", "-f", "pkcs12", "-P", "x", "-o", out).CombinedOutput()
	if err == nil {
		t.Errorf("the private keys were exported: %s", said)
	}
	if strings.Contains(string(said), "could not be found") {
		t.Errorf("there was nothing to export: %s", said)
	}
	t.Logf("security export: %s", said)
}
