package config

import "smime-agent/platform"

// policySource is where an installed agent finds managed policy.
func policySource() Source { return PolicyFolder(platform.SystemPaths().Policy) }
