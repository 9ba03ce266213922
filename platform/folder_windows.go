package platform

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

// Rights on files and folders (winnt.h). On a folder, 0x40 lets its holder
// delete what lies in it, whoever owns that.
const (
	mayRead        = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL
	mayDeleteChild = 0x40
	mayExchange    = windows.DELETE | mayDeleteChild | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_ALL
	mayWrite       = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.FILE_WRITE_ATTRIBUTES |
		windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_WRITE | windows.GENERIC_ALL
)

// syncFolder has nothing to do: Windows flushes no folders, and NTFS journals
// its renames.
func syncFolder(*os.Root) error { return nil }

// entry is a file or folder that is open, and what it is. A link is open itself,
// not what it leads to.
type entry struct {
	handle windows.Handle
	path   string
	guarding
	folder, link bool
}

func (e entry) close() error { return windows.CloseHandle(e.handle) }

func (a account) open(path string, access uint32) (entry, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return entry{}, fmt.Errorf("%w: %q: %w", ErrDenied, path, err)
	}
	h, err := windows.CreateFile(name, access|windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return entry{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	e := entry{handle: h, path: path}
	if err := e.describe(a); err != nil {
		return entry{}, errors.Join(fmt.Errorf("%s: %w", path, err), e.close())
	}
	return e, nil
}

func (e *entry) describe(a account) error {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(e.handle, &info); err != nil {
		return err
	}
	e.folder = info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0
	if info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		tag, err := win32.ReparseTag(e.handle)
		if err != nil {
			return err
		}
		e.link = tag&nameSurrogate != 0
	}
	var err error
	e.guarding, err = a.inspect(e.handle, windows.SE_FILE_OBJECT)
	return err
}

// nameSurrogate marks a reparse point that stands for something elsewhere, as
// links and junctions do, and not for content that is kept otherwise, as with
// compression and cloud folders ([MS-FSCC] 2.1.2.1).
const nameSurrogate = 0x20000000

func privateDir(path string) error {
	me, err := self()
	if err != nil {
		return err
	}
	path, err = localPath(path)
	if err == nil {
		err = me.setForeignRootAside(path)
	}
	if err == nil {
		err = me.makeFolders(path)
	}
	if root := dataRoot(); err == nil && root != "" && path != root && within(root, path) {
		// An installer's folder has what ProgramData hands down: everybody may add to it.
		err = me.restore(root)
	}
	if err == nil {
		err = me.restore(path)
	}
	if err != nil {
		return fmt.Errorf("private folder %s: %w", path, err)
	}
	return nil
}

// localPath refuses paths whose access lists this machine does not keep: those
// of other machines, and of devices.
func localPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if v := filepath.VolumeName(path); len(v) != 2 || v[1] != ':' || strings.ContainsRune(path[2:], ':') {
		return "", fmt.Errorf("%w: %s is not a path on a drive of this machine", ErrDenied, path)
	}
	return path, nil
}

// makeFolders makes what is missing of the way, each folder only in one that was
// found trustworthy, and all of them private.
func (a account) makeFolders(path string) error {
	err := a.trustedWay(filepath.Dir(path))
	if errors.Is(err, ErrNotFound) && path != filepath.Dir(path) {
		if err = a.makeFolders(filepath.Dir(path)); err == nil {
			err = a.restore(filepath.Dir(path))
		}
	}
	if err != nil {
		return err
	}
	sd, err := windows.SecurityDescriptorFromString(a.private())
	if err != nil {
		return err
	}
	if err := win32.CreateFolder(path, sd); err != nil && !errors.Is(err, fs.ErrExist) {
		return denied(err)
	}
	return nil
}

// restore gives a folder of ours the access list back that somebody changed. It
// works on the open folder, so that nothing can be put in its place meanwhile.
func (a account) restore(path string) error {
	e, err := a.open(path, windows.WRITE_DAC|windows.WRITE_OWNER)
	if err != nil {
		return denied(err)
	}
	defer func() { _ = e.close() }()
	switch {
	case e.link || !e.folder:
		return fmt.Errorf("%w: %s is a link or a file, not a folder", ErrDenied, path)
	case !a.owns(e.owner):
		return fmt.Errorf("%w: %s belongs to %s, not to %s", ErrDenied, path, e.owner, a.sid)
	case e.others == 0 && e.below == 0 && e.protected && e.owner == a.sid:
		return nil
	}
	if err := a.setPrivate(e.handle); err != nil {
		return denied(err)
	}
	after, err := a.inspect(e.handle, windows.SE_FILE_OBJECT)
	if err == nil && after.others != 0 {
		// Wine's SetSecurityInfo keeps what was inherited; this call does not.
		if after, err = a.setPlainly(e.handle); err != nil {
			return denied(err)
		}
	}
	if err == nil && after.others != 0 {
		err = fmt.Errorf("%w: others can still open %s (rights 0x%x)", ErrDenied, path, uint32(after.others))
	}
	return err
}

func (a account) setPrivate(h windows.Handle) error {
	sd, err := windows.SecurityDescriptorFromString(a.private())
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION,
		owner, nil, dacl, nil)
}

// setPlainly sets the access list of the folder alone, not of what lies in it.
func (a account) setPlainly(h windows.Handle) (guarding, error) {
	sd, err := windows.SecurityDescriptorFromString(a.private())
	if err != nil {
		return guarding{}, err
	}
	if err := windows.SetKernelObjectSecurity(h, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, sd); err != nil {
		return guarding{}, err
	}
	return a.inspect(h, windows.SE_FILE_OBJECT)
}

// setForeignRootAside renames what a user put where the service's folder shall
// be: everybody may make folders in ProgramData, and whoever is first must not be
// able to keep the service down. It touches no other place.
func (a account) setForeignRootAside(path string) error {
	root := dataRoot()
	if root == "" || !within(root, path) {
		return nil
	}
	e, err := a.open(root, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return denied(err)
	}
	foreign := e.link || !e.folder || !a.trusts(e.owner)
	if err := e.close(); err != nil || !foreign {
		return err
	}
	return denied(os.Rename(root, root+".set-aside-"+rand.Text()))
}

// within says that path is root or lies below it. Names are compared as Windows
// does, without regard to case.
func within(root, path string) bool {
	return len(path) >= len(root) && strings.EqualFold(path[:len(root)], root) &&
		(len(path) == len(root) || path[len(root)] == filepath.Separator)
}

// trustedWay says that nobody but administrators and this account can exchange
// the folder or one above it. That others may add to one, as in ProgramData, does
// not matter: they cannot replace what is there. A link on the way is followed if
// it is an administrator's or this account's.
func (a account) trustedWay(dir string) error {
	for links := 0; ; {
		target, err := a.firstLink(dir)
		if err != nil || target == "" {
			return err
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%w: %s: too many links", ErrDenied, dir)
		}
		dir = target
	}
}

// maxLinks is where Windows gives up too (MAXIMUM_REPARSE_COUNT).
const maxLinks = 63

// firstLink walks from the drive's root to dir. At the first link it stops and
// says where the way leads from there.
func (a account) firstLink(dir string) (string, error) {
	dir, err := localPath(dir)
	if err != nil {
		return "", err
	}
	at := filepath.VolumeName(dir) + `\`
	rest := strings.FieldsFunc(dir[len(at)-1:], func(r rune) bool { return r == '\\' })
	for {
		link, err := a.trustedFolder(at)
		if err != nil {
			return "", err
		}
		if link != "" {
			if !filepath.IsAbs(link) {
				link = filepath.Join(filepath.Dir(at), link)
			}
			return filepath.Join(append([]string{link}, rest...)...), nil
		}
		if len(rest) == 0 {
			return "", nil
		}
		at, rest = filepath.Join(at, rest[0]), rest[1:]
	}
}

// trustedFolder judges one folder on the way; link is where it leads if it is a
// link.
func (a account) trustedFolder(path string) (link string, err error) {
	e, err := a.open(path, 0)
	if err != nil {
		return "", missing(err)
	}
	defer func() { _ = e.close() }()
	switch {
	case !a.trusts(e.owner):
		return "", fmt.Errorf("%w: %s belongs to %s", ErrDenied, path, e.owner)
	case e.others&mayExchange != 0:
		return "", fmt.Errorf("%w: other users can exchange the folder %s (rights 0x%x)", ErrDenied, path, uint32(e.others))
	case e.link && e.others&mayWrite != 0: // who may write it may let it lead elsewhere
		return "", fmt.Errorf("%w: other users can change the link %s (rights 0x%x)", ErrDenied, path, uint32(e.others))
	case e.link:
		return os.Readlink(path)
	case !e.folder:
		return "", fmt.Errorf("%w: %s is not a folder", ErrDenied, path)
	}
	return "", nil
}

func readTrusted(path string, limit int64) ([]byte, bool, error) {
	data, private, err := readOwned(path, limit)
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	return data, private, nil
}

func readOwned(path string, limit int64) ([]byte, bool, error) {
	me, err := self()
	if err != nil {
		return nil, false, err
	}
	if path, err = localPath(path); err != nil {
		return nil, false, err
	}
	if err := me.trustedWay(filepath.Dir(path)); err != nil {
		return nil, false, err
	}
	e, err := me.open(path, windows.GENERIC_READ)
	if err != nil {
		return nil, false, missing(err)
	}
	f := os.NewFile(uintptr(e.handle), path)
	defer f.Close()
	switch {
	case e.folder || e.link:
		return nil, false, fmt.Errorf("%w: it is not a regular file", ErrDenied)
	case !me.trusts(e.owner):
		return nil, false, fmt.Errorf("%w: it belongs to %s", ErrDenied, e.owner)
	case e.others&mayWrite != 0:
		return nil, false, fmt.Errorf("%w: other users can write it (rights 0x%x)", ErrDenied, uint32(e.others))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, false, err
	}
	if int64(len(data)) > limit {
		return nil, false, fmt.Errorf("it is longer than %d bytes", limit)
	}
	return data, e.others&mayRead == 0, nil
}
