package site

import "io/fs"

// ownerOf knows no numbers of accounts here.
func ownerOf(fs.FileInfo) (uid uint32, known bool) { return 0, false }
