package macos

import (
	"os"
	"strings"
	"testing"

	"howett.net/plist"
)

// TestEntitlements: the helper may load libraries of other teams and has no other
// exception; the service has none. Whether codesign takes it was never run.
func TestEntitlements(t *testing.T) {
	const file = "smime-helper.entitlements"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if _, err := plist.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all["com.apple.security.cs.disable-library-validation"] != true {
		t.Errorf("entitlements %v", all)
	}
	script, err := os.ReadFile("build.sh")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(script), file) != 1 || !strings.Contains(string(script), `if [ "$program" = smime-helper ]; then options=runtime entitlements=installer/macos/`+file+`; fi`) {
		t.Error("the entitlements are not given to the helper alone")
	}
}
