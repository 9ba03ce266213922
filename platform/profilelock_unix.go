//go:build unix

package platform

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// profileInUse looks at the locks of a Mozilla profile as their holder takes
// them (toolkit/profile/nsProfileLock.cpp): a record lock on .parentlock, and on
// Linux a link "lock" to ADDRESS:+PID. The plus says that the holder has the
// record lock too, so that without one the link is left over from a crash.
func profileInUse(dir string) (bool, error) {
	locked, err := recordLocked(filepath.Join(dir, ".parentlock"))
	if locked || err != nil {
		return locked, err
	}
	target, err := os.Readlink(filepath.Join(dir, "lock"))
	if err != nil {
		return false, nil // none, or no link: nobody's lock
	}
	address, pid, ok := strings.Cut(target, ":")
	if !ok || strings.HasPrefix(pid, "+") {
		return false, nil
	}
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 0 {
		return false, nil
	}
	// Where record locks do not work (some network file systems) the link counts;
	// of another machine's process nothing can be known.
	return !ownAddress(address) || !errors.Is(unix.Kill(n, 0), unix.ESRCH), nil
}

func recordLocked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, denied(err)
	}
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	var asked error
	if err := conn.Control(func(fd uintptr) { asked = unix.FcntlFlock(fd, unix.F_GETLK, &lock) }); err != nil {
		return false, err
	}
	if errors.Is(asked, unix.ENOLCK) || errors.Is(asked, unix.EOPNOTSUPP) {
		return false, nil // the link must do
	}
	return asked == nil && lock.Type != unix.F_UNLCK, asked
}

func ownAddress(address string) bool {
	ip := net.ParseIP(address)
	if ip == nil || ip.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}
