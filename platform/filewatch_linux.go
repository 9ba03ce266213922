package platform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// fileWatch is an instance of inotify(7). Folders are watched and not files,
// since a file is replaced by another one more often than it is written.
type fileWatch struct {
	file *os.File
	fd   int

	mu sync.Mutex
	// names are what counts in each folder, by its watch; the empty name is for all.
	names map[int32]map[string]bool
}

// fileMask is every change that can make settings others, and nothing that
// reading does.
const fileMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

func (w *fileWatch) open(tell func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch files: %w: %w", ErrUnsupported, err) // the user's instances are used up
	}
	w.fd, w.file = fd, os.NewFile(uintptr(fd), "inotify")
	go w.read(tell)
	return nil
}

// read ends when the file is closed.
func (w *fileWatch) read(tell func()) {
	buffer := make([]byte, 4096)
	for {
		n, err := w.file.Read(buffer)
		if err != nil {
			return
		}
		if w.counts(buffer[:n]) {
			tell()
		}
	}
}

// counts says that one of the events is about what is followed (inotify(7),
// struct inotify_event).
func (w *fileWatch) counts(events []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	any := false
	for len(events) >= unix.SizeofInotifyEvent {
		watch := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := min(int(binary.NativeEndian.Uint32(events[12:])), len(events)-unix.SizeofInotifyEvent)
		name, _, _ := bytes.Cut(events[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], []byte{0})
		events = events[unix.SizeofInotifyEvent+size:]
		names := w.names[watch]
		gone := mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_Q_OVERFLOW) != 0
		any = any || gone || names[""] || names[string(name)]
	}
	return any
}

func (w *fileWatch) follow(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.names
	w.names = map[int32]map[string]bool{}
	for _, path := range paths {
		if path == "" {
			continue
		}
		path = filepath.Clean(path)
		w.add(path, "") // fails for what is no folder
		// A folder that is not there will be seen to come in the one above it.
		for dir := filepath.Dir(path); !w.add(dir, filepath.Base(path)) && dir != path; dir = filepath.Dir(path) {
			path = dir
		}
	}
	for watch := range old {
		if w.names[watch] == nil {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(watch)) // fails for a folder that is gone
		}
	}
}

// add watches a folder, and says whether it is there.
func (w *fileWatch) add(dir, name string) bool {
	// A folder that is watched already has the watch it had.
	n, err := unix.InotifyAddWatch(w.fd, dir, fileMask)
	if err != nil {
		return false
	}
	watch := int32(n)
	if w.names[watch] == nil {
		w.names[watch] = map[string]bool{}
	}
	w.names[watch][name] = true
	return true
}

// enough: what is followed is told of, and [Ticks] end a sleep.
func (*fileWatch) enough() bool { return true }

func (w *fileWatch) close() error { return w.file.Close() }
