package platform

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/windows"
)

// currentUserPaths takes the local application data, which does not roam to
// other machines, and in it a folder for each logon session: a user may be logged
// on twice, at the screen and remotely.
func currentUserPaths(env func(string) string) (UserPaths, error) {
	dir := env("LOCALAPPDATA")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = windows.KnownFolderPath(windows.FOLDERID_LocalAppData, 0); err != nil {
			return UserPaths{}, fmt.Errorf("find the user's folder: %w", err)
		}
	}
	dir = filepath.Join(dir, "smime-agent")
	p := UserPaths{State: dir, Runtime: dir}
	var session uint32
	if err := windows.ProcessIdToSessionId(uint32(os.Getpid()), &session); err == nil {
		p.Runtime = filepath.Join(dir, "session-"+strconv.FormatUint(uint64(session), 10))
	}
	return p, nil
}
