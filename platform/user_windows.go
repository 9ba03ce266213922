package platform

import (
	"fmt"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/text/language"
)

func currentUser() (User, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return User{}, fmt.Errorf("ask who runs this process: %w", err)
	}
	sid := user.User.Sid
	return User{ID: sid.String(), Account: accountName(sid), UPN: principalName(), Locale: locale()}, nil
}

// principalName is the UPN; empty for a local account, or where no domain
// controller could be asked.
func principalName() string {
	name := make([]uint16, 1024)
	size := uint32(len(name))
	if err := windows.GetUserNameEx(windows.NameUserPrincipal, &name[0], &size); err != nil {
		return ""
	}
	upn := windows.UTF16ToString(name)
	if !strings.Contains(upn, "@") {
		return ""
	}
	return upn
}

// locale is the first language in which the user wants to see programs.
func locale() string {
	names, err := windows.GetUserPreferredUILanguages(windows.MUI_LANGUAGE_NAME)
	if err != nil {
		return "en"
	}
	for _, name := range names {
		if tag, err := language.Parse(name); err == nil && tag != language.Und {
			return tag.String()
		}
	}
	return "en"
}
