package platform

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// fileWatch is a queue of kqueue(2). Not run. Each file is watched, and the folder that it
// lies in, since a file is replaced by another one more often than it is written;
// a folder tells of names that come and go.
type fileWatch struct {
	queue int
	// wake is a pipe whose end ends the reader.
	wake [2]int
	done chan struct{}

	mu sync.Mutex
	// files are the descriptors of what is watched, by path; nil once it is closed.
	files map[string]int
}

// enough is false: the look each minute also notices that the machine was asleep.
func (*fileWatch) enough() bool { return false }

// vnodeChanges is every change that can make settings others.
const vnodeChanges = unix.NOTE_WRITE | unix.NOTE_EXTEND | unix.NOTE_ATTRIB | unix.NOTE_DELETE | unix.NOTE_RENAME | unix.NOTE_REVOKE

func (w *fileWatch) open(tell func()) error {
	queue, err := unix.Kqueue()
	if err != nil {
		return fmt.Errorf("watch files: %w: %w", ErrUnsupported, err)
	}
	unix.CloseOnExec(queue)
	if err := unix.Pipe(w.wake[:]); err != nil {
		return errors.Join(fmt.Errorf("watch files: %w: %w", ErrUnsupported, err), unix.Close(queue))
	}
	unix.CloseOnExec(w.wake[0])
	unix.CloseOnExec(w.wake[1])
	w.queue, w.done, w.files = queue, make(chan struct{}), map[string]int{}
	if err := w.add(w.wake[0], unix.EVFILT_READ, 0); err != nil {
		return errors.Join(fmt.Errorf("watch files: %w: %w", ErrUnsupported, err), w.closeAll())
	}
	go w.read(tell)
	return nil
}

func (w *fileWatch) add(fd, filter int, notes uint32) error {
	change := unix.Kevent_t{Fflags: notes}
	unix.SetKevent(&change, fd, filter, unix.EV_ADD|unix.EV_CLEAR)
	_, err := unix.Kevent(w.queue, []unix.Kevent_t{change}, nil, nil)
	return err
}

// read ends when something comes through the pipe.
func (w *fileWatch) read(tell func()) {
	defer close(w.done)
	events := make([]unix.Kevent_t, 16)
	for {
		n, err := unix.Kevent(w.queue, nil, events, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if e.Filter == unix.EVFILT_READ {
				return
			}
		}
		tell()
	}
}

// follow opens anew what is there now. A descriptor that is closed leaves the queue.
func (w *fileWatch) follow(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files == nil {
		return // closed
	}
	old := w.files
	w.files = map[string]int{}
	for _, path := range paths {
		if path == "" {
			continue
		}
		path = filepath.Clean(path)
		w.watch(path)
		// A folder that is not there will be seen to come in the one above it.
		for dir := filepath.Dir(path); !w.watch(dir) && dir != filepath.Dir(dir); {
			dir = filepath.Dir(dir)
		}
	}
	for _, fd := range old {
		_ = unix.Close(fd) // it was only looked at
	}
}

// watch says whether the file or folder is there.
func (w *fileWatch) watch(path string) bool {
	if _, ok := w.files[path]; ok {
		return true
	}
	fd, err := unix.Open(path, unix.O_EVTONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if w.add(fd, unix.EVFILT_VNODE, vnodeChanges) != nil {
		_ = unix.Close(fd)
		return false
	}
	w.files[path] = fd
	return true
}

func (w *fileWatch) close() error {
	if _, err := unix.Write(w.wake[1], []byte{0}); err != nil {
		return err
	}
	<-w.done
	return w.closeAll()
}

func (w *fileWatch) closeAll() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := []error{unix.Close(w.queue), unix.Close(w.wake[0]), unix.Close(w.wake[1])}
	for _, fd := range w.files {
		failed = append(failed, unix.Close(fd))
	}
	w.files = nil
	return errors.Join(failed...)
}
