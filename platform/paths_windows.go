package platform

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// dataRoot is the service's folder; empty if the system does not say. Not by the
// environment: Wine gives a service another ProgramData than a console, and on
// Windows whoever starts a program chooses its environment.
func dataRoot() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "smime-agent")
}

func systemPaths() Paths {
	root := dataRoot()
	return Paths{
		Config:    filepath.Join(root, "config.yaml"),
		Policy:    `HKLM\Software\Policies\smime-agent`,
		Installed: `HKLM\Software\smime-agent`,
		Handover:  `HKLM\Software\smime-agent-join`,
		State:     filepath.Join(root, "state"),
		Logs:      filepath.Join(root, "logs"),
		Address:   pipePrefix + "smime-agent",
		Service:   "smime-agent",
	}
}
