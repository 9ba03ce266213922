package platform

import (
	"os"
	"path/filepath"
)

func ownThunderbird(o MailOptions) MailProgram {
	roaming, local := os.Getenv("APPDATA"), os.Getenv("LOCALAPPDATA")
	if o.Home != "" {
		roaming, local = filepath.Join(o.Home, "AppData", "Roaming"), filepath.Join(o.Home, "AppData", "Local")
	}
	return thunderbirdProgram{windowsThunderbirds(roaming, local)}
}
