package platform

import (
	"os"

	"howett.net/plist"
)

// Where an MDM's profile for Thunderbird lands, and the installation. Not run.
const (
	managedThunderbird = "/Library/Managed Preferences/org.mozilla.thunderbird.plist"
	thunderbirdApp     = "/Applications/Thunderbird.app/Contents/Resources"
)

// policies: a profile of an MDM goes before the installation's file.
func (thunderbird) policies() prefPolicies {
	var managed struct {
		Enabled     bool           `plist:"EnterprisePoliciesEnabled"`
		Preferences map[string]any `plist:"Preferences"`
	}
	if raw, err := os.ReadFile(managedThunderbird); err == nil {
		if _, err := plist.Unmarshal(raw, &managed); err == nil && managed.Enabled && managed.Preferences != nil {
			return prefPoliciesOf(managed.Preferences)
		}
	}
	return prefPoliciesOf(firstPolicies(distributed(thunderbirdApp)))
}
