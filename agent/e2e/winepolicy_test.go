//go:build linux

package e2e_test

import (
	"encoding/json"
	"encoding/xml"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/config"
	"smime-agent/agent/status"
)

// policyTemplate is what Group Policy's editor makes of the template: for each
// element the key and the value that it writes.
type policyTemplate struct {
	Policies []struct {
		Name      string `xml:"name,attr"`
		Key       string `xml:"key,attr"`
		ValueName string `xml:"valueName,attr"`
		Disabled  *struct {
			Number string `xml:"value,attr"`
		} `xml:"disabledValue>decimal"`
		Text    *policyElement `xml:"elements>text"`
		Decimal *policyElement `xml:"elements>decimal"`
		Enum    *policyElement `xml:"elements>enum"`
		List    *policyElement `xml:"elements>list"`
	} `xml:"policies>policy"`
}

type policyElement struct {
	ValueName string `xml:"valueName,attr"`
	Key       string `xml:"key,attr"`
	Items     []struct {
		Text string `xml:"value>string"`
	} `xml:"item"`
}

// written are texts for settings that take a text. Each must differ from the
// default, and none may move what the running service uses.
var written = map[string]string{
	"server": "policy.example:1", "server_ca": `C:\policy\ca.pem`, "join_token_file": `C:\policy\token`, "proxy": "http://proxy.example:3128",
	"proxy_user": "somebody", "proxy_password_file": `C:\policy\password`, "state_dir": `C:\policy\state`, "log_dir": `C:\policy\logs`,
	"address": `\\.\pipe\policy`, "sync_floor": "20s", "retry_cap": "40m", "proof_interval": "12h", "self_check": "1h", "organization": "Policy GmbH", "prompt_timeout": "2h",
}

const pins = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= sha256/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

// testTemplate writes every policy of the template into the registry as Group
// Policy's editor does, and asks the service what it has read.
func (s *packaged) testTemplate(t *testing.T) {
	var all policyTemplate
	s.must(xml.Unmarshal([]byte(read(windowsInstaller+"/smime-agent.admx")), &all))
	want := map[string]string{}
	add := func(setting, key, name, kind, text, shown string) {
		s.must(s.program(time.Minute, "reg", s.wine, "reg", "add", `HKLM\`+key, "/v", name, "/t", kind, "/d", text, "/f"))
		want[setting] = shown
	}
	for _, p := range all.Policies {
		switch {
		case p.Text != nil:
			text := written[p.Name]
			if text == "" {
				t.Errorf("nothing to write for %s", p.Name)
			}
			add(p.Name, p.Key, p.Text.ValueName, "REG_SZ", text, text)
		case p.Decimal != nil:
			add(p.Name, p.Key, p.Decimal.ValueName, "REG_DWORD", "7", "7")
		case p.Enum != nil:
			last := p.Enum.Items[len(p.Enum.Items)-1].Text
			add(p.Name, p.Key, p.Enum.ValueName, "REG_SZ", last, last)
		case p.List != nil:
			for i, pin := range strings.Fields(pins) {
				add(p.Name, p.List.Key, string(rune('1'+i)), "REG_SZ", pin, strings.ReplaceAll(pins, " ", ", "))
			}
		case p.Disabled != nil:
			add(p.Name, p.Key, p.ValueName, "REG_DWORD", p.Disabled.Number, map[string]string{"0": "false"}[p.Disabled.Number])
		default:
			t.Errorf("%s is of a kind that this test does not know", p.Name)
		}
	}
	if len(want) < len(config.Table())-1 { // a token is no policy
		t.Errorf("the template has %d of %d settings", len(want), len(config.Table()))
	}
	s.awaitPolicy(want)
	s.must(s.program(time.Minute, "reg", s.wine, "reg", "delete", policyKey, "/f"))
	s.quicken()
	_, _ = s.tryAt("sync")
	s.same(newerMSI, proved)
}

// tryAt runs a command against the pipe where the service listens, whatever policy
// says of the next start.
func (s *packaged) tryAt(args ...string) (string, error) {
	return s.try(append(append([]string{"smime-agent.exe"}, args...), "--address", `\\.\pipe\smime-agent`)...)
}

// awaitPolicy waits until each setting has the wanted value, from policy.
func (s *packaged) awaitPolicy(want map[string]string) {
	s.t.Helper()
	var wrong []string
	for deadline := time.Now().Add(winePatience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		_, _ = s.tryAt("sync") // has the settings read again, and fails: nothing is at that address
		said, err := s.tryAt("policy", "--json")
		s.must(err)
		var shown status.Settings
		s.must(json.Unmarshal([]byte(said), &shown))
		wrong = wrong[:0]
		for name, value := range want {
			if !slices.ContainsFunc(shown.Settings, func(v status.Setting) bool {
				return v.Name == name && strings.HasPrefix(v.Source, string(config.FromPolicy)+" ") && v.Problem == "" && v.Value == value
			}) {
				wrong = append(wrong, name+"="+value)
			}
		}
		if len(wrong) == 0 {
			return
		}
	}
	out, _ := s.tryAt("policy", "--json")
	s.t.Fatalf("not read back: %v\n%s", wrong, out)
}
