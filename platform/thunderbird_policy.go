package platform

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Thunderbird's own policies (mail/components/enterprisepolicies in
// comm-central): what an administrator sets for all profiles of an installation.
// Those about preferences of mail accounts are read, and nothing is ever written.

// prefPolicies is what they say of preferences.
type prefPolicies struct {
	// held is what holds at each start, whatever the profile says. nil: the
	// profile's own value is dropped.
	held map[string]any
	// defaults hold where the profile says nothing.
	defaults map[string]any
}

// policyName is the file's name, maxPoliciesFile its bound in octets.
const (
	policyName      = "policies.json"
	maxPoliciesFile = 4 << 20
)

// prefPoliciesOf reads the policy Preferences as Policies.sys.mjs does: a bare
// value is locked (the older form); an object has a Status.
func prefPoliciesOf(preferences map[string]any) prefPolicies {
	p := prefPolicies{held: map[string]any{}, defaults: map[string]any{}}
	for name, said := range preferences {
		if !strings.HasPrefix(name, "mail.identity.") {
			continue // nothing else is ever looked up
		}
		object, ok := said.(map[string]any)
		if !ok {
			p.held[name] = prefValue(name, said)
			continue
		}
		switch object["Status"] {
		case "locked", "user": // the latter is set anew at each start
			p.held[name] = prefValue(name, object["Value"])
		case "clear":
			p.held[name] = nil
		default:
			p.defaults[name] = prefValue(name, object["Value"])
		}
	}
	return p
}

// prefValue is a value as [pref] has it. Group policy and property lists write
// switches as 0 and 1.
func prefValue(name string, said any) any {
	var n int
	switch v := said.(type) {
	case float64:
		n = int(v)
	case int64:
		n = int(v)
	case uint64:
		n = int(v) //nolint:gosec // a preference has 32 bits
	default:
		return said
	}
	if strings.HasSuffix(name, "."+prefSign) {
		return n != 0
	}
	return n
}

// preferencesIn reads the policy Preferences out of a policies.json. One that
// cannot be read, or is none, Thunderbird passes over too.
func preferencesIn(path string) map[string]any {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // it was only read
	raw, err := io.ReadAll(io.LimitReader(f, maxPoliciesFile))
	if err != nil {
		return nil
	}
	var file struct {
		Policies struct {
			Preferences map[string]any
		} `json:"policies"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if d.Decode(&file) != nil {
		return nil
	}
	return file.Policies.Preferences
}

// firstPolicies reads the first of these files that is there.
func firstPolicies(paths ...string) map[string]any {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return preferencesIn(path)
		}
	}
	return nil
}

// distributed is the place of a policies.json in an installation.
func distributed(folder string) string { return filepath.Join(folder, "distribution", policyName) }
