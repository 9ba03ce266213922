//go:build unix

package config_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"howett.net/plist"

	"smime-agent/agent/config"
)

const plistHead = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">`

const managedXML = plistHead + `<dict>
	<key>server</key><string>central.example:8443</string>
	<key>server_pin</key><array><string>` + pinA + `</string><string>` + pinB + `</string></array>
	<key>log_max_files</key><integer>7</integer>
	<key>show_notices</key><false/>
	<key>sync_floor</key><string>2m</string>
	<key>PayloadUUID</key><string>of no setting</string>
</dict></plist>`

func newManaged(t *testing.T, text string) *machine {
	t.Helper()
	m := newMachine(t)
	m.write("managed.plist", text, 0o644)
	m.Policy = config.SystemPolicy(filepath.Join(m.dir, "managed.plist"))
	return m
}

// TestManaged reads managed preferences; they win over the file.
func TestManaged(t *testing.T) {
	m := newManaged(t, managedXML)
	m.file("server: other.example:1\nlog_level: debug\n")
	s, problems := m.load()
	noProblems(t, problems)
	if s.Server != "central.example:8443" || len(s.ServerPins) != 2 || s.LogMaxFiles != 7 || s.ShowNotices || s.SyncFloor != 2*time.Minute {
		t.Errorf("%+v", s)
	}
	v := valueOf(t, s, "server")
	if v.Source != config.FromPolicy || !strings.HasSuffix(v.Where, "managed.plist:server") {
		t.Errorf("%+v", v)
	}
	if valueOf(t, s, "log_level").Source != config.FromFile {
		t.Error("what is not managed does not come from the file")
	}
}

// TestManagedBinary: device management files the binary form.
func TestManagedBinary(t *testing.T) {
	data, err := plist.Marshal(map[string]any{"server": "central.example:8443", "server_pin": []string{pinA}, "log_max_files": 9}, plist.BinaryFormat)
	if err != nil {
		t.Fatal(err)
	}
	s, problems := newManaged(t, string(data)).load()
	noProblems(t, problems)
	if s.Server != "central.example:8443" || s.LogMaxFiles != 9 {
		t.Errorf("%+v", s)
	}
}

// TestManagedBroken: policy is not lifted by breaking it.
func TestManagedBroken(t *testing.T) {
	m := newManaged(t, managedXML)
	m.file("server: other.example:1\nserver_pin: " + pinA + "\n")
	good, _ := m.load()
	for name, text := range map[string]string{"no list": "server central", "a text": plistHead + "<string>x</string></plist>", "torn": managedXML[:len(managedXML)-30]} {
		m.write("managed.plist", text, 0o644)
		s, problems := config.Reload(good, m.Sources)
		if s.Server != "central.example:8443" || len(problems) == 0 {
			t.Errorf("%s: server %q, problems %v", name, s.Server, problems)
		}
	}
	m.write("managed.plist", managedXML, 0o666)
	if s, problems := config.Reload(good, m.Sources); s.Server != "central.example:8443" || len(problems) == 0 {
		t.Errorf("a file that others can write: server %q, problems %v", s.Server, problems)
	}
	m.write("managed.plist", plistHead+`<dict><key>server</key><dict><key>a</key><integer>1</integer></dict><key>server_pin</key><array><data>AAAA</data></array></dict></plist>`, 0o644)
	s, problems := config.Reload(good, m.Sources)
	if s.Server != "central.example:8443" || len(s.ServerPins) != 2 || len(problems) < 2 {
		t.Errorf("wrong types: server %q, %d pins, problems %v", s.Server, len(s.ServerPins), problems)
	}
}

// TestManagedAbsent: without management nothing is managed.
func TestManagedAbsent(t *testing.T) {
	if layers := config.SystemPolicy(filepath.Join(t.TempDir(), "none.plist")).Layers(); layers != nil {
		t.Errorf("%+v", layers)
	}
}
