package platform

// FileWatch tells when files, or keys of the registry, that are followed may have changed.
type FileWatch struct {
	changed chan struct{}
	system  fileWatch
}

// WatchFiles begins to watch; nothing is followed yet. [ErrUnsupported] where
// the system has no way that costs nothing while nothing happens.
func WatchFiles() (*FileWatch, error) {
	w := &FileWatch{changed: make(chan struct{}, 1)}
	if err := w.system.open(w.tell); err != nil {
		return nil, err
	}
	return w, nil
}

// Changed has a value soon after a file, folder or key that is followed came, went,
// was written, or got other rights. Values that nobody takes are not kept. What
// happens further up, or behind a link, may be missed: look now and then all
// the same.
func (w *FileWatch) Changed() <-chan struct{} { return w.changed }

func (w *FileWatch) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Enough says that nothing is missed that a look each minute would notice: all
// kinds of places are followed, and [Ticks] tell of the end of a sleep.
func (w *FileWatch) Enough() bool { return w.system.enough() }

// Follow watches these files, whether they are there or not, and what lies in
// them where they are folders, in place of those before; on Windows keys below
// HKLM instead. Call it again after a
// change: what is there may be another one now.
func (w *FileWatch) Follow(paths []string) { w.system.follow(paths) }

// Close ends the watch.
func (w *FileWatch) Close() error { return w.system.close() }
