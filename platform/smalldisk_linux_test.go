package platform_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"smime-agent/platform/platformtest"
)

// TestSmallDisks: full and read-only file systems under each place that is
// written, for real.
func TestSmallDisks(t *testing.T) {
	needRoot(t)
	for _, place := range []string{"state/secrets", ".local/share/smime-agent/keys", thunderbirdRoot + "/abcd.default"} {
		for _, kind := range []string{"full", "read-only"} {
			t.Run(place+" "+kind, func(t *testing.T) {
				home := writerWorld(t)
				disk := smallDisk(t, filepath.Join(home, place))
				if strings.Contains(place, "abcd") {
					write(t, filepath.Join(home, writerPrefs), tbPrefs)
				}
				disk.spoil(t, kind)
				lines := startWriter(t, home)
				failed := 0
				for _, l := range lines {
					if strings.HasPrefix(l, "failed ") {
						failed++
					}
				}
				if failed == 0 {
					t.Errorf("nothing failed:\n%s", strings.Join(lines, "\n"))
				}
				disk.mend(t)
				noLeftovers(t, home)
				if err := checkWritten(t, home, lines); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// smallFS is a tmpfs of some kB.
type smallFS struct{ dir string }

func smallDisk(t *testing.T, dir string) smallFS {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mounted := syscall.Mount("small", dir, "tmpfs", 0, "size=512k,mode=0700")
	platformtest.Need(t, fmt.Sprintf("the right to mount a file system (%v)", mounted), mounted == nil)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return smallFS{dir}
}

func (d smallFS) spoil(t *testing.T, kind string) {
	t.Helper()
	if kind == "read-only" {
		d.remount(t, syscall.MS_RDONLY)
		return
	}
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (d smallFS) remount(t *testing.T, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("small", d.dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=512k,mode=0700"); err != nil {
		t.Fatal(err)
	}
}

func (d smallFS) mend(t *testing.T) {
	t.Helper()
	d.remount(t, 0)
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
