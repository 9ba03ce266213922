package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/agent/config"
)

// examples are for settings that have no default.
var examples = map[string]string{
	"server":              "smime.example.com:8443",
	"server_ca":           "/etc/smime-agent/server-ca.pem",
	"server_pin":          "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
	"join_token_file":     "/var/lib/smime-agent/join-token",
	"proxy_user":          "smime-agent",
	"proxy_password_file": "/var/lib/smime-agent/proxy-password",
	"organization":        "Example GmbH",
}

const sampleHead = `# Settings of the S/MIME agent. Copy this file to /etc/smime-agent/config.yaml,
# owned by root and writable by nobody else, and take the "#" from what you set.
# What is shown is the default, or an example where there is none. Managed policy
# goes into /etc/smime-agent/policy.d/*.yaml, has the same lines, and wins.
# What is in force, and where it comes from: smime-agent policy
#
# Generated from the table in agent/config; change it there, then: make generate
`

// sample is the configuration file with every line commented out.
func sample() []byte {
	var b strings.Builder
	b.WriteString(sampleHead)
	for _, s := range config.Table() {
		if s.Type == config.Hidden {
			continue // join_token_file is for that
		}
		b.WriteString("\n")
		for _, help := range []string{s.Help, s.HelpZH} {
			b.WriteString("# " + strings.ReplaceAll(help, "`", "") + "\n")
		}
		value := s.Default
		if value == "" {
			value = examples[s.Name]
		}
		b.WriteString("#" + s.Name + ": " + value + "\n")
	}
	return []byte(b.String())
}

// TestSample: with every "#" taken away the sample has all settings, and the
// reader finds no fault with it but that a proxy's user needs a proxy.
func TestSample(t *testing.T) {
	var lines []string
	for line := range strings.Lines(string(sample())) {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") && line != "#\n" {
			lines = append(lines, strings.TrimPrefix(line, "#"))
		}
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, problems := config.Load(config.Sources{File: file, FileWanted: true})
	for _, p := range problems {
		if p.Setting != "proxy" {
			t.Error(p)
		}
	}
	for _, v := range s.Effective() {
		if v.Source != config.FromFile && v.Name != "join_token" {
			t.Errorf("%s is not in the sample: %+v", v.Name, v)
		}
	}
}
