package platform

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TempDir is testing's TempDir without os.RemoveAll, which fails under Wine 8:
// that does not know the kind of deletion that Go asks for
// (FileDispositionInformationEx) and answers ERROR_INVALID_FUNCTION, for which
// Go has no second way (internal/syscall/windows, Deleteat).
func TempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smime-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var all []string
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			all = append(all, path)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		for _, path := range slices.Backward(all) {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}
