package platform

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// fileWatch follows keys below HKLM. Files are not followed: what they say is
// for the look each minute.
type fileWatch struct {
	tell func()

	mu sync.Mutex
	// keys are those that are followed; each has an event that ends its watch.
	keys map[string]windows.Handle
	gone sync.WaitGroup
}

// enough is false: the look each minute is also for files, and for the end of sleep.
func (*fileWatch) enough() bool { return false }

func (w *fileWatch) open(tell func()) error {
	w.tell, w.keys = tell, map[string]windows.Handle{}
	return nil
}

func (w *fileWatch) follow(places []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys == nil {
		return // closed
	}
	for key, stop := range w.keys {
		if !slices.Contains(places, `HKLM\`+key) {
			_ = windows.SetEvent(stop) // it fails for no event that is open
			delete(w.keys, key)
		}
	}
	for _, place := range places {
		key, ok := strings.CutPrefix(place, `HKLM\`)
		if _, followed := w.keys[key]; !ok || followed {
			continue
		}
		stop, err := windows.CreateEvent(nil, 1, 0, nil)
		if err != nil {
			continue // no handles are left; the look each minute goes on
		}
		w.keys[key] = stop
		w.gone.Go(func() { w.watch(key, stop) })
	}
}

// forget ends what follow began. The event is closed with the lock held, so that
// nobody sets it later, when its number may be another's.
func (w *fileWatch) forget(key string, stop windows.Handle) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[key] == stop {
		delete(w.keys, key) // the next to follow it may have better luck
	}
	_ = windows.CloseHandle(stop)
}

// watch waits for one change after the other. The thread is its own: a
// notification ends with the thread that asked for it (RegNotifyChangeKeyValue).
func (w *fileWatch) watch(key string, stop windows.Handle) {
	runtime.LockOSThread()
	defer w.forget(key, stop)
	changed, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		return
	}
	defer func() { _ = windows.CloseHandle(changed) }()
	for {
		k, there, err := nearestKey(key)
		if err != nil {
			return
		}
		changes := uint32(keyChanges)
		if !there {
			changes = windows.REG_NOTIFY_CHANGE_NAME // it is to be seen to come; all else there is others'
		}
		err = windows.RegNotifyChangeKeyValue(windows.Handle(k), there, changes, changed, true)
		var which uint32
		if err == nil {
			which, err = windows.WaitForMultipleObjects([]windows.Handle{stop, changed}, false, windows.INFINITE)
		}
		_ = k.Close() // this ends the notification too
		if err != nil || which != windows.WAIT_OBJECT_0+1 {
			return
		}
		w.tell()
	}
}

const keyChanges = windows.REG_NOTIFY_CHANGE_NAME | windows.REG_NOTIFY_CHANGE_LAST_SET | windows.REG_NOTIFY_CHANGE_SECURITY

// nearestKey opens a key, or the nearest above it that is there: in that the key,
// or the next on the way to it, will be seen to come.
func nearestKey(path string) (k registry.Key, there bool, err error) {
	for there = true; ; there = false {
		k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.NOTIFY|registry.WOW64_64KEY)
		if err == nil || !errors.Is(err, registry.ErrNotExist) {
			return k, there, denied(err)
		}
		at := strings.LastIndexByte(path, '\\')
		if at < 0 {
			return 0, false, fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		path = path[:at]
	}
}

func (w *fileWatch) close() error {
	w.mu.Lock()
	var failed []error
	for _, stop := range w.keys {
		failed = append(failed, windows.SetEvent(stop))
	}
	w.keys = nil
	w.mu.Unlock()
	w.gone.Wait()
	return errors.Join(failed...)
}
