package platform

import "os"

func mailPrograms(o MailOptions) []MailProgram {
	home := o.Home
	if home == "" {
		home, _ = os.UserHomeDir() // who has none has no mail programs
	}
	return []MailProgram{thunderbirdProgram{thunderbirds(home)}}
}
