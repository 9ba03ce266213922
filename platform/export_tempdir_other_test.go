//go:build !windows

package platform

import "testing"

// TempDir is testing's; on Windows it is another.
func TempDir(t *testing.T) string {
	t.Helper()
	return t.TempDir()
}
