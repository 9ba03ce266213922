package site

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/server"
)

const (
	webRoot    = server.PathRoot
	webRootCRL = server.PathRootCRL
)

// Config is server.yaml.
type Config struct {
	Listen          string   `yaml:"listen"`
	Web             string   `yaml:"web"`
	Hosts           []string `yaml:"hosts"`
	PublicURL       string   `yaml:"public_url"`
	Reserved        bool     `yaml:"reserved_policy_oid"`
	OwnPolicy       string   `yaml:"own_policy_oid"`
	SyncInterval    string   `yaml:"sync_interval"`
	PendingInterval string   `yaml:"pending_interval"`
	IdentityLife    string   `yaml:"identity_life"`
	IdentityGrace   string   `yaml:"identity_grace"`
}

// ReadConfig reads the directory's server.yaml; unknown keys are errors.
func ReadConfig(dir string) (Config, error) {
	var c Config
	path := filepath.Join(dir, ConfigFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
		return c, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if len(c.Hosts) == 0 || c.Listen == "" || c.Web == "" || c.PublicURL == "" {
		return c, fmt.Errorf("%s: listen, web, hosts and public_url must be set", path)
	}
	return c, nil
}

// settings reads the times.
func (c Config) settings() (server.Settings, error) {
	var s server.Settings
	for _, f := range []struct {
		name, text string
		to         *time.Duration
	}{
		{"sync_interval", c.SyncInterval, &s.SyncInterval},
		{"pending_interval", c.PendingInterval, &s.PendingInterval},
		{"identity_life", c.IdentityLife, &s.IdentityLife},
		{"identity_grace", c.IdentityGrace, &s.IdentityGrace},
	} {
		d, err := policy.ParseDuration(f.text)
		if err != nil || d < 0 {
			return s, fmt.Errorf("%s: %s is %q; write a time such as 30d, 1h or 90s", ConfigFile, f.name, f.text)
		}
		*f.to = d
	}
	return s, nil
}

func settingsFor(publicURL string, reserved bool, own string) ca.Settings {
	return ca.Settings{
		CRLURL: publicURL + server.PathCRL, IssuerURL: publicURL + server.PathCA, Reserved: reserved, OwnPolicy: own,
	}
}
