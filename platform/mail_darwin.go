//go:build cgo

package platform

import "path/filepath"

// mailPrograms gives those of macOS. Outlook is looked for where it is installed
// for all users.
func mailPrograms(o MailOptions) []MailProgram {
	home, err := homeOf(StoreOptions{Home: o.Home})
	if err != nil {
		return []MailProgram{ownThunderbird(o), outlookMac{outlookMacApp}}
	}
	open := func() (keychain, error) {
		k, err := openKeychain(o.Home)
		if err != nil {
			return nil, err
		}
		return realKeychain{k}, nil
	}
	return []MailProgram{
		ownThunderbird(o), appleMail{open: open, dir: filepath.Join(home, "Library", "Application Support", "smime-agent", "mail")}, outlookMac{outlookMacApp},
	}
}

const outlookMacApp = "/Applications/Microsoft Outlook.app"
