package platform

<<<<<<< HEAD
import (
	"os"
	"path/filepath"
)

func mailPrograms(o MailOptions) []MailProgram {
	roaming, local := os.Getenv("APPDATA"), os.Getenv("LOCALAPPDATA")
	if o.Home != "" {
		roaming, local = filepath.Join(o.Home, "AppData", "Roaming"), filepath.Join(o.Home, "AppData", "Local")
	}
	return []MailProgram{outlookClassic{}, outlookNew{}, thunderbirdProgram{windowsThunderbirds(roaming, local)}}
}
=======
func mailPrograms(o MailOptions) []MailProgram { return []MailProgram{ownThunderbird(o)} }
>>>>>>> w/mail
