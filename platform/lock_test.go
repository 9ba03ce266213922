package platform

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLock(t *testing.T) {
	path := filepath.Join(newDir(t), "lock")
	unlock, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrExists) {
		t.Errorf("a second lock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(path)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
	if _, err := Lock(filepath.Join(path, "below")); err == nil {
		t.Error("locked below a file")
	}
}

func TestLockFollowsNoLink(t *testing.T) {
	dir := newDir(t)
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	if unlock, err := Lock(filepath.Join(dir, "link")); err == nil {
		if err := unlock(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
			t.Error("a file was made behind a link")
		}
	}
}

// newDir is a folder of one test. Not t.TempDir: os.RemoveAll fails under Wine 8
// (see TempDir), and what it leaves does no harm.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smime-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
