package platform

// Lock lets one process at a time go on: it holds a lock on a file until unlock
// is called or the process ends, however it ends. [ErrExists] if another holds
// it. The file stays, and means nothing by itself.
func Lock(path string) (unlock func() error, err error) { return lock(path) }
