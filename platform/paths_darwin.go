package platform

// policyDomain is the preference domain of managed settings on macOS: the
// payload's type in a configuration profile.
const policyDomain = "org.smime-agent"

// Nobody but root may write any folder on these ways. That rules out /var/run,
// which is writable for the group daemon, /usr/local, which package managers may
// own, and parts of /Library, which are writable for the group admin on some
// systems.
func systemPaths() Paths {
	return Paths{
		Config:  "/etc/smime-agent/config.yaml",
		Policy:  "/Library/Managed Preferences/" + policyDomain + ".plist",
		State:   "/var/db/smime-agent",
		Logs:    "/var/log/smime-agent",
		Address: "/var/db/smime-agent-run/agent.sock",
		Service: "org.smime-agent",
	}
}
