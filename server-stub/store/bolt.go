package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

const (
	fileMode = 0o600
	// queueLength bounds the writes that wait.
	queueLength = 2048
	// maxBatch bounds one transaction, and so the wait of those in it.
	maxBatch = 512
	// ordered is how full pages get before they split where keys grow, scattered
	// where they come in any order: there, full pages would split into a full and
	// an empty one again and again.
	ordered, scattered = 0.95, 0.5
	// pageSize is twice the usual: of our records, some 1.2 to 1.5 kB, more fit with
	// less waste.
	pageSize = 8 << 10
	// lockWait ends the start of a second server over the same file.
	lockWait = 3 * time.Second
)

// Bolt is a [Store] in one file.
type Bolt struct {
	db    *bbolt.DB
	queue chan *update
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once
}

type update struct {
	write func(Tx) error
	reply chan error
}

// OpenBolt opens the file, or makes it. One process may have it open; another
// gets an error after three seconds.
func OpenBolt(path string) (*Bolt, error) {
	if err := lay(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db, err := openFile(path)
	if errors.Is(err, bberrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another process has it open: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	syncFolder(filepath.Dir(path))
	b := &Bolt{db: db, queue: make(chan *update, queueLength), quit: make(chan struct{}), done: make(chan struct{})}
	go b.run()
	return b, nil
}

// openFile opens a file that is there and has all buckets from then on.
func openFile(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{
		Timeout: lockWait, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true,
		PageSize: pageSize,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, bucket := range Buckets() {
			if _, err := tx.CreateBucketIfNotExists([]byte(bucket)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// lay makes the file if there is none. It gets its name when its first pages are
// on the disk: one that a loss of power cut short there would be taken for a
// damaged one, and opened by nobody.
func lay(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(fresh.Name()) }()
	if err := fresh.Close(); err != nil {
		return err
	}
	db, err := openFile(fresh.Name())
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	// Unlike a rename, a link does not take the name away from another server that was quicker.
	if err := os.Link(fresh.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return os.Rename(fresh.Name(), path) // a file system without links
	}
	return nil
}

// syncFolder has the name of a new file survive a loss of power, which syncing
// the file need not do (fsync(2)). Windows cannot; NTFS has a journal for it.
func syncFolder(dir string) {
	if f, err := os.Open(dir); err == nil { //nolint:gosec // the records' own folder
		_ = f.Sync()
		_ = f.Close()
	}
}

// View reads one consistent state.
func (b *Bolt) View(read func(Tx) error) error {
	err := b.db.View(func(tx *bbolt.Tx) error { return read(&boltTx{tx: tx}) })
	if errors.Is(err, bberrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// Update queues the write for the next commit and waits for it.
func (b *Bolt) Update(ctx context.Context, write func(Tx) error) error {
	u := &update{write: write, reply: make(chan error, 1)}
	select {
	case <-b.quit:
		return ErrClosed
	default:
	}
	select {
	case b.queue <- u:
	default:
		return ErrOverloaded
	}
	select {
	case err := <-u.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-b.done:
		select {
		case err := <-u.reply: // it was in the last batch
			return err
		default:
			return ErrClosed
		}
	}
}

// Snapshot writes the whole file as of one moment. While it writes, pages of
// that moment are not used again, so the file may grow: the target should be fast.
func (b *Bolt) Snapshot(to io.Writer) error {
	err := b.db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(to)
		return err
	})
	if errors.Is(err, bberrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// CheckBolt reads a whole file that nobody has open, and says what is wrong with it.
func CheckBolt(path string) error {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		var wrong error
		for problem := range tx.Check() {
			wrong = errors.Join(wrong, problem)
		}
		for _, bucket := range []Bucket{Meta, Devices, Certificates} {
			if tx.Bucket([]byte(bucket)) == nil {
				wrong = errors.Join(wrong, fmt.Errorf("no bucket %q: not the records of a server", bucket))
			}
		}
		return wrong
	})
	return errors.Join(err, db.Close())
}

// Close commits what is queued and closes the file.
func (b *Bolt) Close() error {
	b.once.Do(func() { close(b.quit) })
	<-b.done
	return b.db.Close()
}

// run is the only writer. It takes whatever is queued, commits it at once, and
// goes on: a lone write waits for no timer, and many share one sync.
func (b *Bolt) run() {
	defer close(b.done)
	for {
		select {
		case u := <-b.queue:
			// Whoever is ready to run may bring a write that shares the sync. A lone
			// caller's write waits for nobody: then there is no one to yield to.
			runtime.Gosched()
			b.commit(b.drain(u))
		case <-b.quit:
			for len(b.queue) > 0 {
				b.commit(b.drain(<-b.queue))
			}
			return
		}
	}
}

func (b *Bolt) drain(first *update) []*update {
	batch := []*update{first}
	for len(batch) < maxBatch {
		select {
		case u := <-b.queue:
			batch = append(batch, u)
		default:
			return batch
		}
	}
	return batch
}

// commit runs a batch as one transaction. A write that fails before it has put
// anything leaves the others alone; one that fails later spoils the transaction,
// which is then begun again without it.
func (b *Bolt) commit(batch []*update) {
	for len(batch) > 0 {
		results := make([]error, len(batch))
		spoiler := -1
		err := b.db.Update(func(tx *bbolt.Tx) error {
			for i, u := range batch {
				t := &boltTx{tx: tx}
				results[i] = u.write(t)
				if results[i] != nil && t.wrote {
					spoiler = i
					return results[i]
				}
			}
			return nil
		})
		if spoiler >= 0 {
			batch[spoiler].reply <- results[spoiler]
			batch = append(batch[:spoiler:spoiler], batch[spoiler+1:]...)
			continue
		}
		for i, u := range batch {
			if err != nil { // refusals too: they may rest on what was not committed
				results[i] = fmt.Errorf("commit: %w", err)
			}
			u.reply <- results[i]
		}
		return
	}
}

type boltTx struct {
	tx    *bbolt.Tx
	wrote bool
}

func (t *boltTx) bucket(name Bucket) *bbolt.Bucket {
	b := t.tx.Bucket([]byte(name))
	b.FillPercent = scattered
	if name == Certificates || name == Devices || name == Roster {
		b.FillPercent = ordered
	}
	return b
}

func (t *boltTx) Get(bucket Bucket, key []byte) []byte { return t.bucket(bucket).Get(key) }

func (t *boltTx) Put(bucket Bucket, key, value []byte) error {
	t.wrote = true
	return t.bucket(bucket).Put(key, value)
}

func (t *boltTx) Delete(bucket Bucket, key []byte) error {
	t.wrote = true
	return t.bucket(bucket).Delete(key)
}

func (t *boltTx) Range(bucket Bucket, prefix, from []byte, visit func(key, value []byte) bool) {
	start := prefix
	if bytes.Compare(from, start) > 0 {
		start = from
	}
	cursor := t.bucket(bucket).Cursor()
	for key, value := cursor.Seek(start); key != nil && bytes.HasPrefix(key, prefix); key, value = cursor.Next() {
		if !visit(key, value) {
			return
		}
	}
}
