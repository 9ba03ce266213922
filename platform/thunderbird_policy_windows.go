package platform

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows/registry"
)

// thunderbirdPolicies is where group policy for Thunderbird lands; its value
// Preferences is the policy as JSON (thunderbird.admx).
const thunderbirdPolicies = `SOFTWARE\Policies\Mozilla\Thunderbird`

// policies: group policy goes before the installation's file, the machine's before
// the user's.
func (thunderbird) policies() prefPolicies {
	for _, root := range []registry.Key{registry.LOCAL_MACHINE, registry.CURRENT_USER} {
		if said := preferencesOf(root); said != nil {
			return prefPoliciesOf(said)
		}
	}
	var paths []string
	for _, folder := range installedThunderbirds() {
		paths = append(paths, distributed(folder))
	}
	for _, variable := range []string{"ProgramFiles", "ProgramFiles(x86)"} {
		if folder := os.Getenv(variable); folder != "" {
			paths = append(paths, distributed(filepath.Join(folder, "Mozilla Thunderbird")))
		}
	}
	return prefPoliciesOf(firstPolicies(paths...))
}

func preferencesOf(root registry.Key) map[string]any {
	k, err := registry.OpenKey(root, thunderbirdPolicies, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return nil
	}
	defer k.Close() //nolint:errcheck // it was only read
	text, kind, err := k.GetStringValue("Preferences")
	if err != nil && kind == registry.MULTI_SZ {
		var lines []string
		lines, _, err = k.GetStringsValue("Preferences")
		text = strings.Join(lines, "\n")
	}
	var said map[string]any
	if err != nil || json.Unmarshal([]byte(text), &said) != nil {
		return nil
	}
	return said
}
