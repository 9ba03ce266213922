//go:build unix

package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/config"
	"smime-agent/platform"
)

const (
	pinA = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	pinB = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="
)

// machine is a set of sources in a folder of the test's own.
type machine struct {
	t   *testing.T
	dir string
	config.Sources
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	return &machine{t, dir, config.Sources{Policy: config.PolicyFolder(filepath.Join(dir, "policy.d")), File: filepath.Join(dir, "config.yaml")}}
}

func (m *machine) file(text string) { m.write("config.yaml", text, 0o644) }

func (m *machine) policy(name, text string) { m.write(filepath.Join("policy.d", name), text, 0o644) }

func (m *machine) write(name, text string, mode fs.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) load() (config.Settings, []config.Problem) { return config.Load(m.Sources) }

func noProblems(t *testing.T, problems []config.Problem) {
	t.Helper()
	for _, p := range problems {
		t.Errorf("problem: %v", p)
	}
}

func valueOf(t *testing.T, s config.Settings, name string) config.Value {
	t.Helper()
	for _, v := range s.Effective() {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no value %q", name)
	return config.Value{}
}

func TestDefaults(t *testing.T) {
	s, problems := newMachine(t).load()
	noProblems(t, problems)
	p := platform.SystemPaths()
	if s.Server != "" || s.StateDir != p.State || s.LogDir != p.Logs || s.Address != p.Address || s.LogLevel != slog.LevelInfo ||
		s.LogMaxSizeMB != 10 || s.LogMaxFiles != 5 || s.SyncFloor != 10*time.Second || s.RetryCap != 30*time.Minute ||
		s.ProofInterval != 24*time.Hour || s.PromptTimeout != time.Hour || !s.ShowNotices || s.Proxy.Mode != config.ProxySystem {
		t.Errorf("%+v", s)
	}
	if got, want := len(s.Effective()), len(config.Table()); got != want {
		t.Errorf("%d effective values, %d settings", got, want)
	}
	for _, v := range s.Effective() {
		if v.Source != config.FromDefault || v.Since == "" || v.Value != v.Default {
			t.Errorf("%+v", v)
		}
	}
}

func TestEverySetting(t *testing.T) {
	m := newMachine(t)
	m.write("config.yaml", `# all of them
server: "smime.example.com:8443"
server_ca: /etc/smime-agent/ca.pem
server_pin: [`+pinA+`, '`+pinB+`']
join_token: 0123
join_token_file: /etc/smime-agent/token
proxy: http://proxy.example:3128
proxy_user: agent
proxy_password_file: /etc/smime-agent/proxy
state_dir: /srv/state
log_dir: /srv/log
address: /run/x/agent.sock
log_level: debug
log_max_size_mb: 20
log_max_files: 7
sync_floor: 2m
retry_cap: 1h30m
proof_interval: 7d
self_check: 20m
organization: 示例公司
prompt_timeout: 90s
show_notices: false
`, 0o600)
	s, problems := m.load()
	noProblems(t, problems)
	if s.Server != "smime.example.com:8443" || s.ServerCA != "/etc/smime-agent/ca.pem" || len(s.ServerPins) != 2 || s.ServerPins[1].String() != pinB ||
		s.JoinToken.Reveal() != "0123" || s.JoinTokenFile != "/etc/smime-agent/token" || s.Proxy.URL.Host != "proxy.example:3128" ||
		s.ProxyUser != "agent" || s.ProxyPasswordFile != "/etc/smime-agent/proxy" {
		t.Errorf("%+v", s)
	}
	if s.StateDir != "/srv/state" || s.LogDir != "/srv/log" || s.Address != "/run/x/agent.sock" || s.LogLevel != slog.LevelDebug ||
		s.LogMaxSizeMB != 20 || s.LogMaxFiles != 7 || s.SyncFloor != 2*time.Minute || s.RetryCap != 90*time.Minute ||
		s.ProofInterval != 7*24*time.Hour || s.SelfCheck != 20*time.Minute || s.Organization != "示例公司" || s.PromptTimeout != 90*time.Second || s.ShowNotices {
		t.Errorf("%+v", s)
	}
	for i, v := range s.Effective() {
		if v.Source != config.FromFile || !strings.HasPrefix(v.Where, m.File+":") || v.Value == "" {
			t.Errorf("%d: %+v", i, v)
		}
	}
	if v := valueOf(t, s, "server_ca"); v.Where != m.File+":3" {
		t.Errorf("server_ca is said to be at %s", v.Where)
	}
}

func TestPrecedence(t *testing.T) {
	m := newMachine(t)
	m.policy("10-first.yaml", "organization: policy 10\nlog_max_files: 10\n")
	m.policy("20-second.yaml", "organization: policy 20\n")
	m.policy("README", "organization: not read\n")
	m.file("organization: file\nlog_max_files: 30\nretry_cap: 3h\nsync_floor: 3m\nlog_level:\n")
	m.Flags = map[string]string{"retry_cap": "2h"}
	s, problems := m.load()
	noProblems(t, problems)
	if s.Organization != "policy 20" || s.LogMaxFiles != 10 || s.RetryCap != 2*time.Hour || s.SyncFloor != 3*time.Minute || s.LogLevel != slog.LevelInfo {
		t.Errorf("%+v", s)
	}
	for name, want := range map[string]config.Origin{"organization": config.FromPolicy, "retry_cap": config.FromFlag, "sync_floor": config.FromFile, "log_level": config.FromDefault} {
		if v := valueOf(t, s, name); v.Source != want {
			t.Errorf("%s comes from %s, want %s", name, v.Source, want)
		}
	}
	m.Flags = map[string]string{"organization": "flag"}
	s, problems = m.load()
	if s.Organization != "policy 20" || len(problems) != 1 || problems[0].Setting != "organization" || !strings.Contains(problems[0].Wrong, "no effect") {
		t.Errorf("a flag against policy: %q, %v", s.Organization, problems)
	}
}

func TestReloadKeepsLastGood(t *testing.T) {
	m := newMachine(t)
	m.policy("10.yaml", "server: a.example:1\nserver_pin: "+pinA+"\n")
	m.file("server: file.example:1\nretry_cap: 1h\nlog_level: warn\n")
	good, problems := m.load()
	noProblems(t, problems)

	m.policy("10.yaml", "server: nonsense\nserver_pin: "+pinB+"\n")
	m.file("retry_cap: soon\n")
	s, problems := config.Reload(good, m.Sources)
	if len(problems) != 2 || s.Server != "a.example:1" || s.ServerPins[0].String() != pinB || s.RetryCap != time.Hour || s.LogLevel != slog.LevelInfo {
		t.Errorf("%+v, %v", s, problems)
	}
	if v := valueOf(t, s, "server"); !v.Kept || v.Source != config.FromPolicy || v.Value != "a.example:1" {
		t.Errorf("%+v", v)
	}
	// Still kept at the reading after, and let go once it is put right.
	s, _ = config.Reload(s, m.Sources)
	if s.Server != "a.example:1" || s.RetryCap != time.Hour {
		t.Errorf("at the second reading: %+v", s)
	}
	m.policy("10.yaml", "server: b.example:2\nserver_pin: "+pinB+"\n")
	s, _ = config.Reload(s, m.Sources)
	if v := valueOf(t, s, "server"); s.Server != "b.example:2" || v.Kept {
		t.Errorf("put right: %q, %+v", s.Server, v)
	}
	if err := os.Remove(filepath.Join(m.dir, "policy.d", "10.yaml")); err != nil {
		t.Fatal(err)
	}
	m.file("server: file.example:1\nserver_pin: " + pinA + "\n")
	s, problems = config.Reload(s, m.Sources)
	noProblems(t, problems)
	if s.Server != "file.example:1" {
		t.Errorf("policy was taken back, the server is %q", s.Server)
	}
}

// TestBrokenPolicyIsNotLifted: a file that cannot be read keeps what it had set,
// and a lower source does not step in.
func TestBrokenPolicyIsNotLifted(t *testing.T) {
	for name, spoil := range map[string]func(m *machine){
		"no YAML":          func(m *machine) { m.policy("10.yaml", "server: \"a.example:1\n\t- x: [") },
		"others can write": func(m *machine) { m.write("policy.d/10.yaml", "server: evil.example:1\n", 0o666) },
		"folder of others": func(m *machine) {
			if err := os.Chmod(filepath.Join(m.dir, "policy.d"), 0o777); err != nil {
				m.t.Fatal(err)
			}
		},
		"too long": func(m *machine) { m.policy("10.yaml", "server: b.example:1\n#"+strings.Repeat("x", 70_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.policy("10.yaml", "server: a.example:1\nserver_pin: "+pinA+"\n")
			m.file("server: file.example:1\n")
			good, problems := m.load()
			noProblems(t, problems)
			spoil(m)
			s, problems := config.Reload(good, m.Sources)
			if s.Server != "a.example:1" || len(problems) != 1 || problems[0].Source != config.FromPolicy || problems[0].Cure == "" {
				t.Errorf("the server is %q; %v", s.Server, problems)
			}
			s, _ = config.Reload(s, m.Sources)
			if s.Server != "a.example:1" {
				t.Errorf("at the second reading the server is %q", s.Server)
			}
		})
	}
}

func TestUnsafeFileIsRefused(t *testing.T) {
	m := newMachine(t)
	m.write("config.yaml", "server: evil.example:1\n", 0o602)
	s, problems := m.load()
	if s.Server != "" || len(problems) != 1 || !strings.Contains(problems[0].Wrong, "another user") || !strings.Contains(problems[0].Cure, "chmod go-w") {
		t.Errorf("%q, %v", s.Server, problems)
	}
}

func TestMissingFile(t *testing.T) {
	m := newMachine(t)
	m.FileWanted = true
	if _, problems := m.load(); len(problems) != 1 || problems[0].Where != m.File || problems[0].Wrong != "There is no such file." {
		t.Errorf("%v", problems)
	}
	m.policy("10.yml", "server: a.example:1\n")
	m.FileWanted = false
	if s, problems := m.load(); s.Server != "" || len(problems) != 1 || !strings.Contains(problems[0].Cure, ".yaml") {
		t.Errorf("%v", problems)
	}
}

func TestFingerprint(t *testing.T) {
	m := newMachine(t)
	seen := map[config.Fingerprint]string{}
	step := func(what string, do func()) {
		t.Helper()
		do()
		f := m.Fingerprint()
		if before, twice := seen[f]; twice {
			t.Errorf("%s cannot be told from %s", what, before)
		}
		if f != m.Fingerprint() {
			t.Errorf("%s: two fingerprints of one state", what)
		}
		seen[f] = what
	}
	step("nothing", func() {})
	step("a file", func() { m.file("server: a.example:1\n") })
	step("another value", func() { m.file("server: b.example:1\n") })
	step("a broken file", func() { m.file("server: [\n") })
	step("a policy", func() { m.policy("10.yaml", "server: b.example:1\n") })
	step("a secret", func() { m.write("config.yaml", "join_token: a\n", 0o600) })
	step("another secret", func() { m.write("config.yaml", "join_token: b\n", 0o600) })
	step("another mode", func() { m.write("config.yaml", "join_token: b\n", 0o644) })
	step("an unsafe mode", func() { m.write("config.yaml", "join_token: b\n", 0o666) })
}

// TestSecretsStaySecret puts a token in and looks for it wherever people look.
func TestSecretsStaySecret(t *testing.T) {
	const token = "tok3n-Secr3t"
	m := newMachine(t)
	m.write("config.yaml", "join_token: "+token+"\n", 0o600)
	s, problems := m.load()
	noProblems(t, problems)
	if s.JoinToken.Reveal() != token {
		t.Fatalf("the token is %q", s.JoinToken.Reveal())
	}
	asJSON, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	values, err := json.Marshal(s.Effective())
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("settings", "token", s.JoinToken)
	for where, text := range map[string]string{
		"JSON": string(asJSON), "values": string(values), "log": logged.String(),
		"%v": fmt.Sprint(s.JoinToken), "%+v": fmt.Sprintf("%+v", s.JoinToken), "%#v": fmt.Sprintf("%#v", s.JoinToken), "%q": fmt.Sprintf("%q", s.JoinToken),
	} {
		if strings.Contains(text, token) {
			t.Errorf("%s tells the token: %s", where, text)
		}
		if !strings.Contains(text, "(set)") {
			t.Errorf("%s does not say that there is a token: %s", where, text)
		}
	}
	// The whole struct keeps raw entries inside; a careless %+v must not tell them.
	if all := fmt.Sprintf("%+v %#v", s, s); strings.Contains(all, token) {
		t.Errorf("the settings tell the token: %s", all)
	}
	for name, spoil := range map[string]func(){
		"readable": func() { m.write("config.yaml", "join_token: "+token+"\n", 0o644) },
		"twice":    func() { m.write("config.yaml", "join_token: x\njoin_token: "+token+"\n", 0o600) },
		"spaces":   func() { m.write("config.yaml", "join_token: "+token+" x\n", 0o600) },
		"list":     func() { m.write("config.yaml", "join_token: ["+token+"]\n", 0o600) },
		"map":      func() { m.write("config.yaml", "join_token: {a: "+token+"}\n", 0o600) },
		"no YAML":  func() { m.write("config.yaml", "join_token: \""+token+"\n", 0o600) },
		"flag":     func() { m.Flags = map[string]string{"join_token": token} },
	} {
		spoil()
		s, problems := m.load()
		if s.JoinToken.Reveal() == token || len(problems) == 0 {
			t.Errorf("%s: the token was taken", name)
		}
		if text := fmt.Sprint(problems); strings.Contains(text, token) {
			t.Errorf("%s: the problem tells the token: %s", name, text)
		}
	}
}

func TestReadSecretFile(t *testing.T) {
	m := newMachine(t)
	path := filepath.Join(m.dir, "token")
	for _, c := range []struct {
		text string
		mode fs.FileMode
		want string
	}{
		{"abc\n", 0o600, "abc"},
		{"abc\r\n", 0o400, "abc"},
		{"a b", 0o600, "a b"},
		{"abc\n", 0o644, ""},
		{"abc\n", 0o640, ""},
		{"abc\n", 0o602, ""},
		{"", 0o600, ""},
		{"two\nlines\n", 0o600, ""},
		{strings.Repeat("x", 5000), 0o600, ""},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		m.write("token", c.text, c.mode)
		got, err := config.ReadSecretFile(path)
		if got.Reveal() != c.want || (err == nil) != (c.want != "") {
			t.Errorf("mode %o, %.10q: %q, %v", c.mode, c.text, got.Reveal(), err)
		}
	}
}
