package state

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// transaction is a bbolt transaction that keeps the head true.
type transaction struct {
	tx   *bbolt.Tx
	head head
}

// begin reads the head and counts a new generation.
func begin(tx *bbolt.Tx) (*transaction, error) {
	t := &transaction{tx: tx}
	ok, err := t.get(bucketMeta, keyHead, &t.head)
	if err == nil && !ok {
		err = fmt.Errorf("%w: head is missing", ErrDamaged)
	}
	t.head.Generation++
	return t, err
}

// layOut makes the buckets and the meta records of an empty file.
func layOut(tx *bbolt.Tx) (*transaction, error) {
	t := &transaction{tx: tx, head: head{Generation: 1, Sets: map[string]set{}}}
	for _, name := range append([]string{bucketMeta}, counted...) {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return nil, fmt.Errorf("make bucket %s: %w", name, err)
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("draw installation ID: %w", err)
	}
	if err := t.put(bucketMeta, keySchema, schema{schemaVersion, minReader}); err != nil {
		return nil, err
	}
	return t, t.put(bucketMeta, keyInstallation, id.String())
}

// finish writes the head; nothing may be put after it.
func (t *transaction) finish() error { return t.put(bucketMeta, keyHead, t.head) }

func (t *transaction) put(bucket, key string, v any) error {
	j, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s/%s: %w", bucket, key, err)
	}
	return t.putRecord(record{bucket: bucket, key: key, generation: t.head.Generation, json: j})
}

func (t *transaction) putRecord(r record) error {
	raw, err := seal(r)
	if err != nil {
		return err
	}
	if err := t.account(r.bucket, r.key, raw); err != nil {
		return err
	}
	if err := t.tx.Bucket([]byte(r.bucket)).Put([]byte(r.key), raw); err != nil {
		return fmt.Errorf("write %s/%s: %w", r.bucket, r.key, err)
	}
	return nil
}

func (t *transaction) remove(bucket, key string) error {
	if err := t.account(bucket, key, nil); err != nil {
		return err
	}
	if err := t.tx.Bucket([]byte(bucket)).Delete([]byte(key)); err != nil {
		return fmt.Errorf("remove %s/%s: %w", bucket, key, err)
	}
	return nil
}

// account takes the record that is there now out of the bucket's set, and the
// new one (nil for none) in.
func (t *transaction) account(bucket, key string, raw []byte) error {
	if bucket == bucketMeta {
		return nil
	}
	s := t.head.Sets[bucket]
	if old := t.tx.Bucket([]byte(bucket)).Get([]byte(key)); old != nil {
		r, err := unsealExactly(bucket, key, old)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		s.Count, s.Sum = s.Count-1, s.Sum^r.sum
	}
	if raw != nil {
		r, err := unsealExactly(bucket, key, raw)
		if err != nil {
			return err
		}
		s.Count, s.Sum = s.Count+1, s.Sum^r.sum
	}
	t.head.Sets[bucket] = s
	return nil
}

func (t *transaction) get(bucket, key string, into any) (bool, error) {
	raw := t.tx.Bucket([]byte(bucket)).Get([]byte(key))
	if raw == nil {
		return false, nil
	}
	if err := decode(bucket, key, raw, into); err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return true, nil
}

// each hands out the JSON of at most n records (0 for all) in the order of keys.
func (t *transaction) each(bucket string, n int, fn func(key string, json []byte) error) error {
	c := t.tx.Bucket([]byte(bucket)).Cursor()
	seen := 0
	for k, v := c.First(); k != nil && (n == 0 || seen < n); k, v = c.Next() {
		seen++
		r, err := unsealExactly(bucket, string(k), v)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err := fn(r.key, r.json); err != nil {
			return fmt.Errorf("read %s/%s: %w", bucket, k, err)
		}
	}
	return nil
}
