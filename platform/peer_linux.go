package platform

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// overflowUID stands for every user of a namespace that is not ours
// (user_namespaces(7)); it is the account "nobody" too.
const overflowUID = 65534

// maxSocketPath is what fits into sockaddr_un with its closing zero (unix(7)).
const maxSocketPath = 107

func peerOf(c net.Conn) (Peer, error) {
	cred, err := credentials(c)
	if err != nil {
		return Peer{}, err
	}
	if cred.uid == overflowUID || cred.uid == systemOverflowUID() || cred.uid == -1 {
		return Peer{}, fmt.Errorf("%w: the peer is uid %d, a user of another namespace", ErrDenied, cred.uid)
	}
	return Peer{User: userID(cred.uid), Admin: cred.uid == 0, PID: cred.pid}, nil
}

// credentials are the kernel's own word of who connected, or who listened
// (SO_PEERCRED, unix(7)).
func credentials(c net.Conn) (credential, error) {
	cred := credential{uid: -1}
	err := asked(c, func(fd int) error {
		u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && u.Uid != ^uint32(0) {
			cred.uid = int(u.Uid)
		}
		if err == nil {
			cred.pid = int(u.Pid)
		}
		return err
	})
	return cred, err
}

// systemOverflowUID is what this kernel was told to use when it was first asked;
// the usual value if it cannot be read.
var systemOverflowUID = sync.OnceValue(func() int {
	data, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return overflowUID
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return overflowUID
	}
	return uid
})
