package main

import (
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"

	bberrors "go.etcd.io/bbolt/errors"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/site"
)

// cures says what to do about what is wrong on this machine; the first that fits
// counts.
var cures = []struct {
	fits func(error) bool
	cure string
}{
	{func(err error) bool {
		return is(site.ConfigFile, missing(err)) || missing(err) == "" && errors.Is(err, fs.ErrNotExist)
	},
		`Name the data directory with --dir, or make one with "` + self() + ` init".`},
	{func(err error) bool {
		return slices.ContainsFunc(site.Founded(), func(file string) bool { return is(file, missing(err)) })
	},
		"Put it back from your backup: what the server was founded with is not made again."},
	{withheld,
		"systemd puts it there for the service alone, and only with LoadCredential=NAME:FILE in a drop-in of its unit (docs/central-management.md)."},
	{func(err error) bool { return missing(err) != "" },
		"Put the file there, or name another, in " + site.ConfigFile + " or on the command line."},
	{func(err error) bool { return errors.Is(err, site.ErrExposed) },
		"Let it belong to the account that the server runs as, and chmod 600 it, or to root and a group of that account, and chmod 640 it; change a password that others may have read."},
	{func(err error) bool { return errors.Is(err, site.ErrConfig) },
		"Correct " + site.ConfigFile + "; its own comments and docs/central-management.md explain each setting."},
	{func(err error) bool {
		listen, ok := errors.AsType[*net.OpError](err)
		return ok && listen.Op == "listen"
	},
		"Set listen, web, admin_web and metrics in " + site.ConfigFile + " to addresses of this machine, host:port, that no other program has."},
	{func(err error) bool { return errors.Is(err, ca.ErrFile) },
		"Put the file back from your backup: a CA's key and certificates are not made again."},
	{func(err error) bool {
		return errors.Is(err, bberrors.ErrInvalid) || errors.Is(err, bberrors.ErrVersionMismatch) || errors.Is(err, bberrors.ErrChecksum)
	}, "Keep the file, and put one from your backup in its place; docs/central-management.md says how, and what is done then."},
	{func(err error) bool { return errors.Is(err, fs.ErrPermission) },
		"Run the command as the account that the data directory belongs to."},
	{func(err error) bool { _, ok := errors.AsType[*fs.PathError](err); return ok },
		"Let it be a file that this account can read and write."},
}

// missing is the path of a file that is not there; empty for other errors.
func missing(err error) string {
	path, ok := errors.AsType[*fs.PathError](err)
	if !ok || !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return filepath.ToSlash(path.Path)
}

// withheld says that systemd did not hand a credential over. Where a service gets
// none, only root may enter the folder of all of them.
func withheld(err error) bool {
	path, ok := errors.AsType[*fs.PathError](err)
	return ok && strings.HasPrefix(path.Path, "/run/credentials/") && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission))
}

// is says that a path is that of a file of the data directory.
func is(file, path string) bool { return path == file || strings.HasSuffix(path, "/"+file) }

func cureOf(err error) error {
	for _, c := range cures {
		if c.fits(err) {
			return cure(err, c.cure)
		}
	}
	return err
}
