package state

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"smime-agent/agent/enroll"
)

// The buckets. Meta is not counted in the head: its three records are known by name.
const (
	bucketMeta        = "meta"
	bucketEnrollments = "enrollments"
	bucketPolicy      = "policy"
	bucketOutbox      = "outbox"
	bucketSync        = "sync"
)

var counted = []string{bucketEnrollments, bucketPolicy, bucketOutbox, bucketSync}

// Keys of the meta bucket, and the only key of policy and sync.
const (
	keySchema       = "schema"
	keyInstallation = "installation"
	keyHead         = "head"
	keyCurrent      = "current"
)

// ErrNewer says that a later version of the agent wrote the file in a way that
// this one cannot read. The file is left as it is.
var ErrNewer = errors.New("record was written by a newer version of the agent")

// schemaVersion is what this agent writes. A change that only adds leaves
// minReader alone, so that the version before can still read and write the
// file; it keeps buckets that it does not know, but drops JSON fields that it
// does not know from the records that it writes itself.
const (
	schemaVersion = 1
	minReader     = 1
)

type schema struct {
	Version   int `json:"version"`
	MinReader int `json:"min_reader"`
}

// readable refuses a file that only a later agent can read.
func (s schema) readable() error {
	if s.MinReader > schemaVersion {
		return fmt.Errorf("%w: schema %d needs a reader of %d, this is %d", ErrNewer, s.Version, s.MinReader, schemaVersion)
	}
	return nil
}

// head holds what must be true of the whole file; it is written anew in every
// transaction.
type head struct {
	// Generation counts the transactions. It shows that a file is older than
	// another one; that a file as a whole was put back from an older copy shows
	// only in comparison with what is kept elsewhere ([AuditEvent.Sequence]).
	Generation uint64         `json:"generation"`
	Sets       map[string]set `json:"sets"`
	// Dropped counts audit events that had to make room.
	Dropped uint64 `json:"dropped,omitempty"`
	// Doubted: see [DB.Doubt].
	Doubted bool `json:"doubted,omitempty"`
}

// set is how many records a bucket has, and the exclusive or of their sums: a
// record that vanished with its element is missed, not only one that changed.
type set struct {
	Count int    `json:"count"`
	Sum   uint64 `json:"sum"`
}

// judge looks at all entries of a whole file. It gives the file's schema
// version, [ErrNewer], or what is wrong with it.
func judge(entries []entry) (int, error) {
	meta := map[string][]byte{}
	for _, e := range entries {
		if e.bucket == bucketMeta {
			meta[e.key] = e.value
		}
	}
	if string(meta[keySchema]) == "0" {
		return 0, nil // the first layout had no checksums
	}
	var s schema
	var h head
	if err := decode(bucketMeta, keySchema, meta[keySchema], &s); err != nil {
		return 0, err
	}
	if err := s.readable(); err != nil {
		return 0, err
	}
	if err := decode(bucketMeta, keyHead, meta[keyHead], &h); err != nil {
		return 0, err
	}
	var installation string
	if err := decode(bucketMeta, keyInstallation, meta[keyInstallation], &installation); err != nil {
		return 0, err
	}
	return s.Version, compareSets(entries, h)
}

func compareSets(entries []entry, h head) error {
	got := map[string]set{}
	for _, e := range entries {
		r, err := unsealExactly(e.bucket, e.key, e.value)
		if err != nil {
			return err
		}
		if r.generation > h.Generation {
			return fmt.Errorf("%s/%s is of generation %d, the file of %d", e.bucket, e.key, r.generation, h.Generation)
		}
		if e.bucket != bucketMeta {
			s := got[e.bucket]
			got[e.bucket] = set{s.Count + 1, s.Sum ^ r.sum}
		}
	}
	for name, want := range h.Sets {
		if got[name] != want {
			return fmt.Errorf("%s has %d records, want %d, or others than it should", name, got[name].Count, want.Count)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		return fmt.Errorf("%d buckets are not accounted for", len(got))
	}
	return nil
}

func decode(bucket, key string, raw []byte, into any) error {
	r, err := unsealExactly(bucket, key, raw)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(r.json, into); err != nil {
		return fmt.Errorf("read %s/%s: %w", bucket, key, err)
	}
	return nil
}

// migrate lifts a file of an older schema, step by step, in one transaction: a
// crash leaves the old file or the new one.
func migrate(b *bbolt.DB, from int) error {
	if from >= schemaVersion {
		return nil
	}
	return b.Update(func(tx *bbolt.Tx) error {
		for v := from; v < schemaVersion; v++ {
			if err := migrations[v](tx); err != nil {
				return fmt.Errorf("migrate record from schema %d: %w", v, err)
			}
		}
		return nil
	})
}

// migrations has the step from each version to the next.
var migrations = map[int]func(*bbolt.Tx) error{0: seal0}

// seal0 puts the bare JSON of schema 0 into records with checksums, and makes
// the buckets that schema 0 did not have.
func seal0(tx *bbolt.Tx) error {
	var old []enroll.Enrollment
	if b := tx.Bucket([]byte(bucketEnrollments)); b != nil {
		err := b.ForEach(func(k, v []byte) error {
			var e enroll.Enrollment
			if err := json.Unmarshal(v, &e); err != nil {
				return fmt.Errorf("read %s: %w", k, err)
			}
			old = append(old, e)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, name := range []string{bucketMeta, bucketEnrollments} {
		if err := tx.DeleteBucket([]byte(name)); err != nil && tx.Bucket([]byte(name)) != nil {
			return fmt.Errorf("clear %s: %w", name, err)
		}
	}
	t, err := layOut(tx)
	if err != nil {
		return err
	}
	for _, e := range old {
		if err := t.put(bucketEnrollments, string(e.ID), e); err != nil {
			return err
		}
	}
	return t.finish()
}
