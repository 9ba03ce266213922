//go:build unix

package site

import "io/fs"

// exposed says that others than the owner may read the file.
func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
