package config

import "smime-agent/platform"

// policySource is where an installed agent finds managed policy: the managed
// preferences of this computer, which the system writes from configuration
// profiles.
func policySource() Source { return PropertyList(platform.SystemPaths().Policy) }
