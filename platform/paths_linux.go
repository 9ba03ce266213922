package platform

// The places follow the Filesystem Hierarchy Standard 3.0 and match the
// directories that the systemd unit asks for (systemd.exec(5), StateDirectory=).
func systemPaths() Paths {
	return Paths{
		Config:  "/etc/smime-agent/config.yaml",
		Policy:  "/etc/smime-agent/policy.d",
		State:   "/var/lib/smime-agent",
		Logs:    "/var/log/smime-agent",
		Address: "/run/smime-agent/agent.sock",
		Service: "smime-agent",
	}
}
