package platform

import (
	"os"
	"path/filepath"
)

func ownThunderbird(o MailOptions) MailProgram { return thunderbirdProgram{thunderbirds(o.Home)} }

// thunderbirds lists the ways, in the person's own folders if home is empty:
// those may have been moved.
func thunderbirds(home string) []thunderbird {
	roaming, local := os.Getenv("APPDATA"), os.Getenv("LOCALAPPDATA")
	if home != "" {
		roaming, local = filepath.Join(home, "AppData", "Roaming"), filepath.Join(home, "AppData", "Local")
	}
	return windowsThunderbirds(roaming, local)
}
