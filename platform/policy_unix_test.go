//go:build unix

package platform_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"howett.net/plist"

	"smime-agent/platform"
)

func writePreferences(t *testing.T, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "managed.plist")
	if err := errors.Join(os.WriteFile(path, data, mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReadPolicy reads both forms of managed preferences.
func TestReadPolicy(t *testing.T) {
	for _, format := range []int{plist.XMLFormat, plist.BinaryFormat} {
		data, err := plist.Marshal(map[string]any{
			"server": "a.example:1", "count": 7, "below": -7, "yes": true, "list": []any{"a", 2, false}, "PayloadUUID": "x",
			"odd": []byte{1}, "odd_list": []any{"a", []any{}}, "empty": []any{},
		}, format)
		if err != nil {
			t.Fatal(err)
		}
		p, err := platform.ReadPolicy(writePreferences(t, data, 0o644))
		want := []platform.PolicyValue{
			{Name: "below", Text: "-7", Number: true}, {Name: "count", Text: "7", Number: true}, {Name: "empty", Items: []string{}},
			{Name: "list", Items: []string{"a", "2", "false"}}, {Name: "odd", Odd: true},
			{Name: "odd_list", Items: []string{"a", ""}, Odd: true}, {Name: "server", Text: "a.example:1"}, {Name: "yes", Text: "true"},
		}
		if err != nil || p.Private || !reflect.DeepEqual(p.Values, want) {
			t.Errorf("format %d: %+v, %v", format, p, err)
		}
		if p, err := platform.ReadPolicy(writePreferences(t, data, 0o600)); err != nil || !p.Private {
			t.Errorf("a private file: %v, %v", p.Private, err)
		}
	}
}

// TestReadPolicyRefuses what others can write, and what is no dictionary; what
// was wrong is told without what was written.
func TestReadPolicyRefuses(t *testing.T) {
	if _, err := platform.ReadPolicy(t.TempDir()); !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := platform.ReadPolicy(filepath.Join(t.TempDir(), "none.plist")); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("nothing: %v", err)
	}
	good, err := plist.Marshal(map[string]any{"server": "a"}, plist.XMLFormat)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := platform.ReadPolicy(writePreferences(t, good, 0o666)); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("a file that others can write: %v", err)
	}
	for _, text := range []string{"s3cret", "", "<plist><string>s3cret</string></plist>", "bplist00s3cret", string(good[:len(good)-20]) + "s3cret"} {
		_, err := platform.ReadPolicy(writePreferences(t, []byte(text), 0o644))
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := platform.ReadPolicy(writePreferences(t, append(good, make([]byte, 70<<10)...), 0o644)); err == nil {
		t.Error("a file without end was read")
	}
}
