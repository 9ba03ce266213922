// Package config knows the agent's settings: one table declares each setting
// once, and from it come the reader, the list of effective values and the
// documentation. Managed policy wins over the command line, the command line
// over the configuration file, and that over the default: what policy sets
// nobody changes, and an administrator at the console wins over the file. A value
// that does not parse is a [Problem], and the last good one stays in force.
package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// Settings are the effective values of all settings.
type Settings struct {
	// Server is host:port of central management; empty until it is set.
	Server string
	// ServerCA is the path of a PEM file with trust anchors for the server.
	ServerCA string
	// ServerPins are the accepted keys of the server or of an issuer in its chain.
	ServerPins []Pin
	JoinToken  Secret
	// JoinTokenFile is read once and removed after joining; see [ReadSecretFile].
	JoinTokenFile string
	Proxy         Proxy
	ProxyUser     string
	// ProxyPasswordFile is read by [ReadSecretFile].
	ProxyPasswordFile string
	// Organization is shown until policy brings a name.
	Organization string

	StateDir, LogDir string
	// Address is the local API's.
	Address      string
	LogLevel     slog.Level
	LogMaxSizeMB int
	LogMaxFiles  int

	// SyncFloor is the shortest time between two contacts in the long run, whatever
	// the server wants; RetryCap the longest wait between two attempts.
	SyncFloor, RetryCap time.Duration
	// ProofInterval is the time between two proofs of one credential.
	ProofInterval time.Duration
	// SelfCheck is the time between two questions of the service to itself.
	SelfCheck     time.Duration
	PromptTimeout time.Duration
	// ShowNotices is false where people shall see questions only.
	ShowNotices bool

	effective []effective
}

// effective is a value with the way to put it in again. That is a function, so
// that nothing that prints the settings can print the secret behind it.
type effective struct {
	Value
	again func(*Settings) *fault
}

// Origin is a kind of source.
type Origin string

// The origins, highest first.
const (
	FromPolicy  Origin = "policy"
	FromFlag    Origin = "flag"
	FromFile    Origin = "file"
	FromDefault Origin = "default"
)

// Value is one effective value as people see it.
type Value struct {
	Name string `json:"name"`
	// Value is "(set)" for a secret.
	Value  string `json:"value"`
	Source Origin `json:"source"`
	// Where is the file and line; empty for a default.
	Where   string `json:"where,omitempty"`
	Default string `json:"default"`
	// Since is the first version that knows the setting.
	Since string `json:"since"`
	// Kept says that this is the last good value, because what is written now
	// cannot be used.
	Kept bool `json:"kept,omitempty"`
	// Visible says that every user of the machine may see it.
	Visible bool `json:"visible"`
	// Restart says that a change takes effect at the next start of the service.
	Restart bool `json:"restart"`
}

// Effective lists the values of all settings in the order of the table.
func (s Settings) Effective() []Value {
	values := make([]Value, 0, len(s.effective))
	for _, e := range s.effective {
		values = append(values, e.Value)
	}
	return values
}

// Problem is something in the settings that an administrator has to put right.
type Problem struct {
	// Setting is empty if a whole source is meant.
	Setting string `json:"setting,omitempty"`
	Source  Origin `json:"source"`
	Where   string `json:"where,omitempty"`
	// Wrong is one sentence, Cure another.
	Wrong string `json:"wrong"`
	Cure  string `json:"cure"`
	// Insecure says that the source was not used because another user may have
	// written it.
	Insecure bool `json:"insecure,omitempty"`
}

func (p Problem) String() string {
	what := string(p.Source)
	if p.Where != "" {
		what += " " + p.Where
	}
	if p.Setting != "" {
		what = fmt.Sprintf("%s (%s)", p.Setting, what)
	}
	return fmt.Sprintf("%s: %s %s", what, p.Wrong, p.Cure)
}

// Secret is a text that shows itself to nobody but [Secret.Reveal]'s caller.
type Secret string

// Reveal gives the text.
func (s Secret) Reveal() string { return string(s) }

const redacted = "(set)"

// String says only whether there is one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from telling.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// LogValue keeps logs from telling.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON keeps JSON from telling.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }
