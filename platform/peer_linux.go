package platform

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// overflowUID stands for every user of a namespace that is not ours
// (user_namespaces(7)); it is the account "nobody" too.
const overflowUID = 65534

func peerOf(c net.Conn) (Peer, error) {
	cred, err := credentials(c)
	if err != nil {
		return Peer{}, err
	}
	uid := int(cred.Uid)
	if uid == overflowUID || uid == systemOverflowUID() || cred.Uid == ^uint32(0) {
		return Peer{}, fmt.Errorf("%w: the peer is uid %d, a user of another namespace", ErrDenied, uid)
	}
	return Peer{User: userID(uid), Account: accountOf(uid), Admin: uid == 0, PID: int(cred.Pid)}, nil
}

// credentials are the kernel's own word of who connected, or who listened
// (SO_PEERCRED, unix(7)).
func credentials(c net.Conn) (*unix.Ucred, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%w: a %T has no peer that the kernel knows", ErrUnsupported, c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) {
		cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, asked); err != nil {
		return nil, fmt.Errorf("%w: ask the kernel for the peer: %w", ErrDenied, err)
	}
	return cred, nil
}

// systemOverflowUID reads what this kernel was told to use; the usual value if
// it cannot be read.
func systemOverflowUID() int {
	data, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return overflowUID
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return overflowUID
	}
	return uid
}
