//go:build linux || darwin

package platform

import (
	"os"
	"os/user"
	"strconv"
)

func currentUser() (User, error) {
	// The effective uid: it is what the kernel tells the other end of a socket.
	uid := os.Geteuid()
	return User{
		ID:      userID(uid),
		Account: accountOf(uid),
		Locale:  locale(os.Getenv),
	}, nil
}

func userID(uid int) string { return "uid:" + strconv.Itoa(uid) }

// accountOf is empty for a uid without an account, as in a small container.
func accountOf(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return ""
	}
	return u.Username
}

// firstFile gives the first file that can be read; empty if there is none.
func firstFile(paths ...string) string {
	for _, p := range paths {
		if data, err := os.ReadFile(p); err == nil {
			return string(data)
		}
	}
	return ""
}
