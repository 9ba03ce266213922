package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/agent/config"
)

//go:generate go test . -count=1 -run ^Test(Artefacts|Document)$ -update

// installers is where the packages' files lie.
const installers = "../../installer"

// TestArtefacts holds to the table what administrators get their settings by: the
// templates for Group Policy, the manifest and a sample profile for macOS, the
// sample file for Linux. They are made by
// go generate.
func TestArtefacts(t *testing.T) {
	for name, want := range artefacts() {
		path := filepath.Join(installers, filepath.FromSlash(name))
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the table says; run make generate", path)
		}
	}
}

func artefacts() map[string][]byte {
	return map[string][]byte{
		"windows/smime-agent.admx":             admx(),
		"windows/en-US/smime-agent.adml":       adml(english),
		"windows/zh-CN/smime-agent.adml":       adml(chinese),
		"macos/manifest/org.smime-agent.plist": manifest(),
		"macos/smime-agent.mobileconfig":       profile(),
		"macos/jamf-schema.json":               jamfSchema(),
		"linux/config.yaml":                    sample(),
	}
}

// managed are the settings that go by policy. A secret does not: every user of a
// machine can read its policy.
func managed() []config.Setting {
	var all []config.Setting
	for _, s := range config.Table() {
		if s.Type != config.Hidden {
			all = append(all, s)
		}
	}
	return all
}

// standard is a setting's default, if it is the same on every system.
func standard(s config.Setting) string {
	if s.Type == config.Path || s.Name == "address" {
		return ""
	}
	return s.Default
}

// words are what the artefacts say about every setting.
type words struct {
	title, help         func(config.Setting) string
	restart, atOnce     string
	name, fallback      string
	since, since01      string
	product, about, ask string
}

var english = words{
	title:   func(s config.Setting) string { return s.Title },
	help:    func(s config.Setting) string { return s.Help },
	restart: "A change takes effect when the service starts the next time.", atOnce: "A change takes effect within a minute.",
	name: "Name of the setting: ", fallback: "Default: ", since: "Known since version ", since01: "smime-agent 0.1 or later",
	product: "S/MIME Agent", about: "Settings of the S/MIME agent. Who gets which certificate is decided at central management.",
	ask: "Write one in a line:",
}

var chinese = words{
	title:   func(s config.Setting) string { return s.TitleZH },
	help:    func(s config.Setting) string { return s.HelpZH },
	restart: "更改在服务下次启动时生效。", atOnce: "更改在一分钟内生效。",
	name: "设置名称：", fallback: "默认值：", since: "起始版本：", since01: "smime-agent 0.1 或更高版本",
	product: "S/MIME 代理程序", about: "S/MIME 代理程序的设置。谁获得哪种证书由集中管理服务器决定。",
	ask: "每行一项：",
}

// explain is all that there is to say about a setting.
func (w words) explain(s config.Setting) string {
	text := []string{strings.ReplaceAll(w.help(s), "`", "\""), ""}
	if d := standard(s); d != "" {
		text = append(text, w.fallback+d)
	}
	effect := w.atOnce
	if s.Restart {
		effect = w.restart
	}
	return strings.Join(append(text, w.name+s.Name, w.since+s.Since, effect), "\n")
}

// TestTitles: whoever adds a setting names it in both languages.
func TestTitles(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range config.Table() {
		for _, title := range []string{s.Title, s.TitleZH} {
			if title == "" || seen[title] {
				t.Errorf("%s: the title %q is empty or used twice", s.Name, title)
			}
			seen[title] = true
		}
	}
}
