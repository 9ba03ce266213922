package platform_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func pipe(*testing.T) string { return `\\.\pipe\smime-agent-test-` + rand.Text() }

func TestIPC(t *testing.T) { platformtest.TestIPC(t, pipe) }

func TestSecrets(t *testing.T) {
	dirs := map[*testing.T]string{}
	platformtest.TestSecrets(t, func(t *testing.T) platform.SecretStore {
		if dirs[t] == "" {
			dirs[t] = platform.TempDir(t)
		}
		s, err := platform.Secrets(filepath.Join(dirs[t], "state"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestSecretsAreSealed(t *testing.T) {
	dir := platform.TempDir(t)
	s, err := platform.Secrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "the private key of this device"
	if err := s.Put(t.Context(), "device-key", []byte(secret)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "secrets", "device-key")
	sealed, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(sealed), secret) {
		t.Fatalf("%q, %v", sealed, err)
	}
	// A sealed secret under another's name is not that other one.
	if err := os.WriteFile(filepath.Join(dir, "secrets", "join-token"), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "join-token"); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("an exchanged secret: %q, %v, want ErrDenied", got, err)
	}
	refused := 0
	for at := range sealed {
		changed := append([]byte{}, sealed...)
		changed[at] ^= 1
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(t.Context(), "device-key")
		switch {
		case err != nil:
			refused++
		case string(got) != secret:
			t.Fatalf("changed at %d of %d, it was read as %q", at, len(sealed), got)
		}
	}
	// Some bytes of DPAPI's envelope mean nothing, above all under Wine.
	if refused < len(secret) {
		t.Errorf("of %d changes, %d were refused", len(sealed), refused)
	}
}

func TestAddresses(t *testing.T) {
	for _, address := range []string{"", "agent", `C:\agent.sock`, `\\.\pipe\`, `\\server\pipe\agent`, `\\.\pipe\a\b`, `\\.\pipe\` + strings.Repeat("a", 300)} {
		if l, err := platform.Listen(address); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("listened at %q: %v, %v", address, l, err)
		}
		if c, err := platform.Dial(t.Context(), address); !errors.Is(err, platform.ErrUnsupported) {
			t.Errorf("dialed %q: %v, %v", address, c, err)
		}
	}
}

func TestCurrentUser(t *testing.T) {
	u, err := platform.CurrentUser()
	if err != nil || !strings.HasPrefix(u.ID, "S-1-5-") || !strings.Contains(u.Account, `\`) || u.Locale == "" {
		t.Errorf("%+v, %v", u, err)
	}
	t.Logf("%+v", u)
}

func TestThisMachine(t *testing.T) {
	m := platform.ThisMachine()
	if m.Hostname == "" || m.OS != "windows" || !strings.Contains(m.Version, "Windows") || len(m.ID) != 36 {
		t.Errorf("%+v", m)
	}
	t.Logf("%+v", m)
}

func TestSystemPaths(t *testing.T) {
	p := platform.SystemPaths()
	for name, path := range map[string]string{"config": p.Config, "state": p.State, "logs": p.Logs} {
		if !filepath.IsAbs(path) || !strings.Contains(path, `\smime-agent\`) {
			t.Errorf("%s: %q", name, path)
		}
	}
	if p.Address != `\\.\pipe\smime-agent` {
		t.Error(p.Address)
	}
}
