package platform

func serviceState(name string) (string, error) {
	return launchctl{path: "/bin/launchctl", jobs: "/Library/LaunchDaemons"}.state(name)
}
