package config

import "smime-agent/platform"

// policySource is where an installed agent finds managed policy: what Group
// Policy writes to the registry.
func policySource() Source { return SystemPolicy(platform.SystemPaths().Policy) }
