package platform

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into sun_path of sockaddr_un with its closing zero
// (sys/un.h: 104 bytes).
const maxSocketPath = 103

// nobodyUID is the account "nobody" of macOS, -2 as an unsigned number.
const nobodyUID = 4294967294

// peerOf decides by the uid alone; the PID is for the log, since it can be
// another process's by the time it is looked at.
func peerOf(c net.Conn) (Peer, error) {
	cred, err := credentials(c)
	if err != nil {
		return Peer{}, err
	}
	if cred.uid < 0 || cred.uid == nobodyUID {
		return Peer{}, fmt.Errorf("%w: the peer is uid %d, which is nobody", ErrDenied, cred.uid)
	}
	return Peer{User: userID(cred.uid), Admin: cred.uid == 0, PID: cred.pid}, nil
}

// credentials are the kernel's own word of who connected, or who listened
// (unix(4): LOCAL_PEERCRED, LOCAL_PEERPID).
func credentials(c net.Conn) (credential, error) {
	cred := credential{uid: -1}
	err := asked(c, func(fd int) error {
		x, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			return err
		}
		// sys/ucred.h: another version has another layout.
		if x.Version != 0 {
			return fmt.Errorf("credentials of version %d", x.Version)
		}
		if x.Uid != ^uint32(0) {
			cred.uid = int(x.Uid)
		}
		if cred.pid, err = unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID); err != nil {
			cred.pid = 0 // the peer may have ended already; who it was is known
		}
		return nil
	})
	return cred, err
}
