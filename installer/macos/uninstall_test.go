package macos

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestUninstall: what the package lays down goes, people's keychains are not
// named, and every program is called by its whole path. It was never run.
func TestUninstall(t *testing.T) {
	const path = "uninstall.sh"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	script := string(data)
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", path).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	places, err := os.ReadFile("../../platform/paths_darwin.go")
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"/Library/LaunchDaemons/org.smime-agent.plist", "/Library/LaunchAgents/org.smime-agent.helper.plist", "/opt/smime-agent"}
	for _, m := range regexp.MustCompile(`(?:State|Logs|Config):\s+"([^"]+)"`).FindAllStringSubmatch(string(places), -1) {
		wanted = append(wanted, m[1])
	}
	if len(wanted) != 6 {
		t.Fatalf("paths_darwin.go was not understood: %q", wanted)
	}
	for _, place := range wanted {
		if !regexp.MustCompile(`(?m)^\s*/bin/rm .*` + regexp.QuoteMeta(place) + `(\s|$)`).MatchString(script) {
			t.Errorf("%s stays", place)
		}
	}
	daemon, _ := readJob(t, "LaunchDaemons/org.smime-agent.plist")
	if log := daemon.StandardErrorPath; !strings.Contains(script, " "+log+"\n") {
		t.Errorf("%s stays", log)
	}
	for _, never := range []string{"/Users", "$HOME", "~/", "login.keychain"} {
		if strings.Contains(script, never) {
			t.Errorf("it touches %s", never)
		}
	}
	if bare := regexp.MustCompile(`(?m)^\s*(rm|rmdir|launchctl|security|pkgutil|ps|awk|sleep)\s`).FindString(script); bare != "" {
		t.Errorf("%q is not called by its whole path", bare)
	}
}
