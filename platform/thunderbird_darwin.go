package platform

import "os"

func ownThunderbird(o MailOptions) MailProgram {
	home := o.Home
	if home == "" {
		home, _ = os.UserHomeDir() // who has none has no mail programs
	}
	return thunderbirdProgram{thunderbirds(home)}
}

func thunderbirds(home string) []thunderbird { return macThunderbirds(home) }
