//go:build linux || darwin

package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func listen(address string) (net.Listener, error) {
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	// Where no service manager made the folder, it is made like systemd's
	// RuntimeDirectory=: for all to enter, for nobody else to write.
	if err := makeParents(filepath.Dir(address)); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	dir, err := socketFolder(address)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	// Two services that start at once must not each take the other's new socket
	// for a stale one. The lock is on the folder, so it leaves no file behind.
	folder, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	l, err := takeAddress(filepath.Join(dir, filepath.Base(address)))
	if err := errors.Join(err, folder.Close()); err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	return l, nil
}

func checkAddress(address string) error {
	if !filepath.IsAbs(address) {
		return fmt.Errorf("%w: address %q is not an absolute path", ErrUnsupported, address)
	}
	if len(address) > maxSocketPath {
		return fmt.Errorf("%w: address %q is longer than %d bytes", ErrUnsupported, address, maxSocketPath)
	}
	return nil
}

// socketFolder finds the socket's real folder, which nobody but root and this
// account may write: whoever can write there can put another socket in.
func socketFolder(address string) (string, error) {
	dir, err := trusted(filepath.Dir(address))
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", denied(err)
	}
	if info.Mode()&othersWrite != 0 {
		return "", fmt.Errorf("%w: other users can write the folder %s (mode %04o)", ErrDenied, dir, info.Mode().Perm())
	}
	return dir, nil
}

func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, denied(err)
	}
	err = flock(f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: another service is taking the address right now: %w", ErrExists, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func flock(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var locked error
	err = raw.Control(func(fd uintptr) { locked = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	return errors.Join(err, locked)
}

func takeAddress(path string) (net.Listener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: %w", ErrExists, err)
	}
	if err != nil {
		return nil, denied(err)
	}
	// The system's service is for every local user; each is told apart by the
	// kernel's word. A service of one user is for that user.
	perm := fs.FileMode(0o600)
	if os.Geteuid() == 0 {
		perm = 0o666
	}
	if err := os.Chmod(path, perm); err != nil {
		return nil, errors.Join(denied(err), l.Close())
	}
	return l, nil
}

// clearStale removes the socket that a dead service of ours left, and nothing
// else: a living service, another's socket or any other file is [ErrExists].
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return denied(err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: what stands there is no socket (%s); remove it", ErrExists, info.Mode())
	}
	if owner(info) != os.Geteuid() {
		return fmt.Errorf("%w: the socket belongs to uid %d", ErrExists, owner(info))
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%w: a service answers there", ErrExists), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: the socket there may be in use: %w", ErrExists, err)
	}
	return denied(os.Remove(path))
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := dialTrusted(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}

func dialTrusted(ctx context.Context, address string) (net.Conn, error) {
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	dir, err := socketFolder(address)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, filepath.Base(address))
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: no service listens there: %w", ErrNotFound, err)
	case err != nil:
		return nil, denied(err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%w: what stands there is no socket (%s)", ErrDenied, info.Mode())
	case !trustedOwner(info):
		return nil, fmt.Errorf("%w: the socket belongs to uid %d", ErrDenied, owner(info))
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: no service listens there: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, denied(err)
	}
	if err := checkServer(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// credential is who is at the other end, by the kernel's word. A uid that does
// not fit an int is -1, which is nobody.
type credential struct{ uid, pid int }

// asked runs a question to the kernel on the connection's socket.
func asked(c net.Conn, ask func(fd int) error) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%w: a %T has no peer that the kernel knows", ErrUnsupported, c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var answer error
	err = raw.Control(func(fd uintptr) { answer = ask(int(fd)) })
	if err := errors.Join(err, answer); err != nil {
		return fmt.Errorf("%w: ask the kernel for the peer: %w", ErrDenied, err)
	}
	return nil
}

// checkServer refuses a server that is neither root's nor our own.
func checkServer(c net.Conn) error {
	cred, err := credentials(c)
	if err != nil {
		return err
	}
	if cred.uid != 0 && cred.uid != os.Geteuid() {
		return fmt.Errorf("%w: the service there runs as uid %d", ErrDenied, cred.uid)
	}
	return nil
}
