//go:build unix

package platform

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// othersWrite are the bits by which somebody else could write. A POSIX ACL that
// lets others write shows in the group's bit, which is its mask (acl(5)).
const othersWrite fs.FileMode = 0o022

func syncFolder(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func createIn(root *os.Root, name string, perm fs.FileMode) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil { // the umask may have taken something away
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func replaceIn(root *os.Root, from, to string) error { return root.Rename(from, to) }
func removeIn(root *os.Root, name string) error      { return root.Remove(name) }

func privateDir(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := makeParents(filepath.Dir(path)); err != nil {
		return fmt.Errorf("private folder %s: %w", path, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("private folder: %w", denied(err))
	}
	return restoreFolder(path, 0o700)
}

// makeParents makes what is missing of the way, each folder only in one that
// was found trustworthy.
func makeParents(dir string) error {
	_, err := os.Lstat(dir)
	if err == nil {
		_, err = trusted(dir)
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
		return denied(err)
	}
	if err := makeParents(filepath.Dir(dir)); err != nil {
		return err
	}
	// Others may pass through, as in /var/lib; only the last folder is private.
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // see above
		return denied(err)
	}
	_, err = trusted(dir)
	return err
}

// restoreFolder gives a folder of ours the mode back that somebody took. It
// works on the open folder, so that nothing can be put in its place meanwhile.
func restoreFolder(path string, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: %s is a link or a file, not a folder: %w", ErrDenied, path, err)
	}
	if err != nil {
		return fmt.Errorf("private folder: %w", denied(err))
	}
	return errors.Join(restore(f, path, perm), f.Close())
}

// restore sets the mode of an open file or folder that must be ours.
func restore(f *os.File, path string, perm fs.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if owner(info) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to uid %d, not to uid %d", ErrDenied, path, owner(info), os.Geteuid())
	}
	if info.Mode().Perm() == perm {
		return nil
	}
	return denied(f.Chmod(perm))
}

func readTrusted(path string, limit int64) ([]byte, bool, error) {
	way, err := trusted(path)
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	// The way there is nobody else's, so what is opened is what was looked at.
	// O_NONBLOCK, or a named pipe would hold us up.
	f, err := os.OpenFile(way, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, fmt.Errorf("read: %w", denied(err))
	}
	data, private, err := readOwned(f, limit)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	return data, private, nil
}

func readOwned(f *os.File, limit int64) ([]byte, bool, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, false, fmt.Errorf("%w: it is not a regular file", ErrDenied)
	case !trustedOwner(info):
		return nil, false, fmt.Errorf("%w: it belongs to uid %d", ErrDenied, owner(info))
	case mode&othersWrite != 0:
		return nil, false, fmt.Errorf("%w: other users can write it (mode %04o)", ErrDenied, mode.Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, false, err
	}
	if int64(len(data)) > limit {
		return nil, false, fmt.Errorf("it is longer than %d bytes", limit)
	}
	return data, info.Mode()&0o044 == 0, nil
}

// maxLinks is where Linux gives up too (path_resolution(7)).
const maxLinks = 40

// trusted follows a path link by link and says where it leads, if nobody but
// root and this account can have laid the way: every folder and link on it is
// theirs, and no folder can be written by others, but for those like /tmp where
// the sticky bit keeps others' hands off what is not theirs.
func trusted(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, rest, links := "/", parts(path), 0
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		if err != nil {
			return "", denied(err)
		}
		if err := trustedEntry(next, info); err != nil {
			return "", err
		}
		at, rest = next, rest[1:]
		if info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%w: %s: too many links", ErrDenied, path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(next), target)
		}
		at, rest = "/", append(parts(target), rest...)
	}
	return at, nil
}

func trustedEntry(path string, info fs.FileInfo) error {
	if !trustedOwner(info) {
		return fmt.Errorf("%w: %s belongs to uid %d", ErrDenied, path, owner(info))
	}
	if info.IsDir() && info.Mode()&othersWrite != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("%w: other users can write the folder %s (mode %04o)", ErrDenied, path, info.Mode().Perm())
	}
	return nil
}

func parts(path string) []string {
	return strings.FieldsFunc(filepath.Clean(path), func(r rune) bool { return r == '/' })
}

func trustedOwner(info fs.FileInfo) bool {
	uid := owner(info)
	return uid == 0 || uid == os.Geteuid()
}

// owner is -1, which is nobody, where the system does not tell.
func owner(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}
