//go:build unix

package config_test

import (
	"strings"
	"testing"

	"smime-agent/agent/config"
)

// TestWrongValues: each message names the setting, the value where it is no
// secret, and what to write instead; and the default stays in force.
func TestWrongValues(t *testing.T) {
	for _, c := range []struct{ name, value, wrong, cure string }{
		{"server", "https://x.example:1", `"https://x.example:1" is a URL`, "smime.example.com:8443"},
		{"server", "x.example", `"x.example" is not host:port`, "host name and a port"},
		{"server", "x.example:0", `port "0"`, "host name and a port"},
		{"server", "x.example:65536", `port "65536"`, "host name and a port"},
		{"server", "x.example:http", `port "http"`, "host name and a port"},
		{"server", "':1'", `host ""`, "host name and a port"},
		{"server", "'a b:1'", `host "a b"`, "host name and a port"},
		{"server", "[a, b]", "is a list", "single value"},
		{"server_ca", "ca.pem", `"ca.pem" is not absolute`, "from the root"},
		{"server_pin", "sha1/AAAA", `"sha1/AAAA"`, "sha256/"},
		{"server_pin", "[]", "list is empty", "Write a pin"},
		{"server_pin", pinA + ",x", `"x"`, "44 letters"},
		{"server_pin", "[" + strings.Repeat(pinA+", ", 16) + pinA + "]", "17 pins", "in use"},
		{"server_pin", "[{a: b}]", "not a single value", "single values"},
		{"join_token", "abc", "other users", "chmod 600"},
		{"join_token_file", "token", `"token" is not absolute`, "from the root"},
		{"proxy", "proxy.example:3128", `"proxy.example:3128"`, "http://proxy.example:3128"},
		{"proxy", "socks5://p.example", "socks5", "http://"},
		{"proxy", "http://u:secretword@p.example", "password", "proxy_password_file"},
		{"proxy", "'http://p.example/%zz'", "not a URL", "http://"},
		{"proxy", "http://p.example/path", "more than host", "http://"},
		{"proxy", "'http://:80'", "no host", "http://"},
		{"proxy_user", `"a\nb"`, "control characters", "one line"},
		{"proxy_password_file", "./p", `"./p"`, "from the root"},
		{"state_dir", "state", `"state"`, "from the root"},
		{"log_dir", "../log", `"../log"`, "from the root"},
		{"address", "localhost:80", `"localhost:80"`, "from the root"},
		{"log_level", "loud", `"loud"`, "debug, info, warn or error"},
		{"log_max_size_mb", "0", `"0"`, "1 to 1000"},
		{"log_max_size_mb", "1.5", `"1.5"`, "whole number"},
		{"log_max_files", "many", `"many"`, "1 to 100"},
		{"sync_floor", "60", `"60"`, "with its unit"},
		{"sync_floor", "-1m", `"-1m"`, "1s to 1d"},
		{"retry_cap", "2d", `"2d"`, "1s to 1d"},
		{"proof_interval", "31d", `"31d"`, "1m to 30d"},
		{"self_check", "9s", `"9s"`, "10s to 1d"},
		{"organization", "'" + strings.Repeat("x", 201) + "'", "longer than 200", "shorter"},
		{"prompt_timeout", "1s", `"1s"`, "10s to 1d"},
		{"show_notices", "yes", `"yes"`, "true or false"},
		{"organization", "{a: b}", "not a single value", "quotes"},
		{"organization", "&x en", "not a single value", "quotes"},
	} {
		t.Run(c.name+" "+c.value[:min(len(c.value), 20)], func(t *testing.T) {
			m := newMachine(t)
			m.file("# comment\n" + c.name + ": " + c.value + "\n")
			s, problems := m.load()
			if len(problems) != 1 {
				t.Fatalf("problems: %v", problems)
			}
			p := problems[0]
			if p.Setting != c.name || p.Source != config.FromFile || p.Where != m.File+":2" || !strings.Contains(p.Wrong, c.wrong) || !strings.Contains(p.Cure, c.cure) {
				t.Errorf("%v", p)
			}
			if strings.Contains(p.Wrong+p.Cure, "secretword") {
				t.Errorf("the problem tells a password: %v", p)
			}
			if !strings.HasSuffix(p.Wrong, ".") || !strings.HasSuffix(p.Cure, ".") {
				t.Errorf("no sentences: %v", p)
			}
			if v := valueOf(t, s, c.name); v.Source != config.FromDefault || v.Value != v.Default {
				t.Errorf("in force: %+v", v)
			}
		})
	}
}

func TestWrongFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, setting, where, wrong, cure string }{
		"slip":            {"servr: a.example:1\n", "servr", ":1", "no such setting", `Did you mean "server"?`},
		"other spelling":  {"\nLogLevel: info\n", "LogLevel", ":2", "no such setting", `Did you mean "log_level"?`},
		"far off":         {"wallpaper: blue\n", "wallpaper", ":1", "no such setting", "list of settings"},
		"twice":           {"organization: a\norganization: b\n", "", ":2", "not YAML", "double names"},
		"no mapping":      {"- a\n- b\n", "", ":1", "not a list of", "line of its own"},
		"text":            {"hello\n", "", ":1", "not a list of", "line of its own"},
		"two documents":   {"organization: a\n---\norganization: b\n", "", ":3", "second document", "three dashes"},
		"merge":           {"a: &a {organization: b}\n<<: *a\n", "", "", "", ""},
		"open quote":      {"organization: \"a\n", "", ":1", "not YAML", "quotes"},
		"tab indentation": {"organization:\n\tx: y\n", "", "", "not YAML", "indentation"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.file(c.text)
			_, problems := m.load()
			if len(problems) == 0 {
				t.Fatal("no problem")
			}
			p := problems[0]
			if c.where != "" && p.Where != m.File+c.where || c.setting != "" && p.Setting != c.setting || !strings.Contains(p.Wrong, c.wrong) || !strings.Contains(p.Cure, c.cure) {
				t.Errorf("%v", p)
			}
		})
	}
	for name, text := range map[string]string{"empty": "", "comments": "# nothing\n\n", "dashes": "---\n", "null": "server:\njoin_token: ~\n"} {
		m := newMachine(t)
		m.file(text)
		if _, problems := m.load(); len(problems) != 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

func TestContradictions(t *testing.T) {
	for _, c := range []struct{ text, setting, wrong, cure string }{
		{"server: a.example:1\n", "server", "which server to trust", "server_ca or server_pin"},
		{"proxy_user: x\n", "proxy", "no proxy", "proxy's URL"},
		{"proxy: http://p.example\nproxy_password_file: /x\n", "proxy_password_file", "no name", "proxy_user"},
		{"sync_floor: 2h\n", "sync_floor", "retry_cap", "retry_cap"},
	} {
		m := newMachine(t)
		m.file(c.text)
		_, problems := m.load()
		if len(problems) != 1 || problems[0].Setting != c.setting || !strings.Contains(problems[0].Wrong, c.wrong) || !strings.Contains(problems[0].Cure, c.cure) {
			t.Errorf("%q: %v", c.text, problems)
		}
	}
}
