package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrInUse says that another process has the record open.
var ErrInUse = errors.New("another agent is running: its record is in use")

// ErrDamaged says that the file broke while it was open. Nothing can be read or
// written until it is opened anew, which repairs it.
var ErrDamaged = errors.New("record is damaged")

// Options are for [Open].
type Options struct {
	// Now names files that are set aside. Required.
	Now func() time.Time
	// LockTimeout is how long to wait for another process to let go; 0 means 5 s.
	LockTimeout time.Duration
	// OutboxLimit is how many audit events are kept until they are reported; 0
	// means 1000. The oldest make room.
	OutboxLimit int
}

// Opened says what [Open] found.
type Opened struct {
	// Created: there was no file.
	Created bool
	// Migrated: the file was of an older schema.
	Migrated bool
	// Damaged: the file could not be believed. It lies under SetAside; what
	// could be saved of it is in a new file. The caller must compare the record
	// with the key stores and central management: records may be missing, or
	// older than they were.
	Damaged bool
	// Doubted: the record was not compared since it was damaged, now or before,
	// or since [DB.Doubt].
	Doubted bool
	// Cause is what was wrong, for the log.
	Cause    string
	SetAside string
	// Salvaged and Missing count enrollments. Missing is -1 if nobody can tell.
	Salvaged, Missing int
}

// keepSetAside is how many damaged files stay for the administrator.
const keepSetAside = 3

// maxFile is far more than a machine's record can grow to.
const maxFile = 512 << 20

// Open opens the record at path, in a folder that exists and that only the
// service may write, and makes it if there is none. A damaged file is set aside
// and replaced by what can be saved of it. [ErrInUse], [ErrNewer]; any other
// error is of the file system.
func Open(path string, o Options) (*DB, Opened, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = 5 * time.Second
	}
	if o.OutboxLimit == 0 {
		o.OutboxLimit = 1000
	}
	lock, err := takeLock(path+".lock", o.LockTimeout)
	if err != nil {
		return nil, Opened{}, err
	}
	d := &DB{lock: lock, outboxLimit: o.OutboxLimit}
	opened, err := d.open(path, o.Now)
	if err != nil {
		return nil, opened, errors.Join(err, d.Close())
	}
	return d, opened, nil
}

func (d *DB) open(path string, now func() time.Time) (Opened, error) {
	var opened Opened
	raw, err := readFile(path)
	var version int
	switch {
	case errors.Is(err, fs.ErrNotExist):
		opened.Created, version = true, schemaVersion
		err = build(path, nil, false)
	case err == nil:
		version, err = examine(raw)
		if cause := err; err != nil && !errors.Is(err, ErrNewer) {
			version = schemaVersion
			opened, err = repair(path, raw, now())
			opened.Cause = cause.Error()
		}
	}
	if err != nil {
		return opened, fmt.Errorf("open record %s: %w", path, err)
	}
	opened.Migrated = version < schemaVersion
	err = guard(func() error {
		if d.bolt, err = openBolt(path, time.Second); err != nil {
			return err
		}
		if err := migrate(d.bolt, version); err != nil {
			return err
		}
		return d.bolt.View(func(tx *bbolt.Tx) error {
			t := &transaction{tx: tx}
			_, err1 := t.get(bucketMeta, keyInstallation, &d.installation)
			_, err2 := t.get(bucketMeta, keyHead, &t.head)
			opened.Doubted = t.head.Doubted
			return errors.Join(err1, err2)
		})
	})
	return opened, err
}

// examine gives the schema version of a file that can be believed.
func examine(raw []byte) (int, error) {
	entries, err := readImage(raw)
	if err != nil {
		return 0, err
	}
	return judge(entries)
}

func openBolt(path string, timeout time.Duration) (*bbolt.DB, error) {
	b, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: timeout,
		// The free list is found by looking at the tree: one page less to write
		// with each save, and one less to go bad.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		PageSize:       pageSize,
		NoStatistics:   true,
	})
	if err != nil {
		return nil, fmt.Errorf("open record %s: %w", path, err)
	}
	return b, nil
}

// takeLock holds the record for this process. The lock is a file of its own,
// since the record itself may be replaced while the lock is held; and it is an
// empty bbolt file, since bbolt knows how to lock on every system.
func takeLock(path string, timeout time.Duration) (*bbolt.DB, error) {
	var lock *bbolt.DB
	try := func() (err error) { lock, err = openBolt(path, timeout); return err }
	err := guard(try)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("lock %s: %w", path, ErrInUse)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch),
		errors.Is(err, berrors.ErrChecksum), errors.Is(err, ErrDamaged):
		// Whoever held it would have made us wait. There is nothing in it to lose.
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		err = guard(try)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return lock, nil
}

// readFile reads a regular file and refuses anything else, a link above all.
func readFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are believable", path, info.Size(), int64(maxFile))
	}
	return os.ReadFile(path)
}

// build writes a new file with the records and puts it at path at once.
func build(path string, records []record, doubted bool) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := openBolt(fresh, time.Second)
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		t, err := layOut(tx)
		if err != nil {
			return err
		}
		for _, r := range records {
			t.head.Generation = max(t.head.Generation, r.generation)
			if err := t.putRecord(r); err != nil {
				return err
			}
		}
		t.head.Generation++
		t.head.Doubted = doubted
		return t.finish()
	})
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	syncDir(filepath.Dir(path))
	return nil
}

// syncDir makes a rename survive a power loss where the system can; Windows
// cannot sync a folder, NTFS has a journal for it.
func syncDir(dir string) {
	if f, err := os.Open(dir); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}

// setAside keeps the damaged file under another name, and of older ones only a few.
func setAside(path string, raw []byte, at time.Time) (string, error) {
	aside := path + ".damaged-" + at.UTC().Format("20060102T150405.000Z")
	if err := os.Link(path, aside); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.WriteFile(aside, raw, 0o600); err != nil {
			return "", err
		}
	}
	old, err := filepath.Glob(path + ".damaged-*")
	if err != nil {
		return "", err
	}
	slices.Sort(old) // by time, as they are named
	for len(old) > keepSetAside {
		if err := os.Remove(old[0]); err != nil {
			return "", err
		}
		old = old[1:]
	}
	return aside, nil
}
