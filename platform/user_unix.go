//go:build linux || darwin

package platform

import (
	"os"
	"os/user"
	"strconv"
	"strings"
)

func currentUser() (User, error) {
	// The effective uid: it is what the kernel tells the other end of a socket.
	uid := os.Geteuid()
	return User{
		ID:      userID(uid),
		Account: accountOf(userID(uid)),
		Locale:  locale(os.Getenv),
	}, nil
}

// uidPrefix begins a user's ID here.
const uidPrefix = "uid:"

func userID(uid int) string { return uidPrefix + strconv.Itoa(uid) }

// accountOf is empty for a uid without an account, as in a small container.
func accountOf(id string) string {
	uid, ok := strings.CutPrefix(id, uidPrefix)
	if !ok {
		return ""
	}
	u, err := user.LookupId(uid)
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
