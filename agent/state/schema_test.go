package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"

	"smime-agent/agent/enroll"
)

var update = flag.Bool("update", false, "write testdata/v0.db anew")

// writeV0 makes a file as the first layout had it: bare JSON, no checksums.
func writeV0(t *testing.T, path string, es []enroll.Enrollment) {
	t.Helper()
	b, err := openBolt(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket([]byte(bucketMeta))
		if err != nil {
			return err
		}
		if err := meta.Put([]byte(keySchema), []byte("0")); err != nil {
			return err
		}
		bucket, err := tx.CreateBucket([]byte(bucketEnrollments))
		if err != nil {
			return err
		}
		for _, e := range es {
			j, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := bucket.Put([]byte(e.ID), j); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationFromTheStoredFile(t *testing.T) {
	stored := filepath.Join("testdata", "v0.db")
	if *update {
		_ = os.Remove(stored)
		writeV0(t, stored, samples(5))
	}
	raw, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "agent.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	d, opened := mustOpen(t, path)
	if opened != (Opened{Migrated: true}) {
		t.Errorf("opened = %+v", opened)
	}
	if es, err := d.Load(); err != nil || !reflect.DeepEqual(es, samples(5)) {
		t.Errorf("Load = %d, %v", len(es), err)
	}
	if err := d.SavePolicy(enroll.Policy{Revision: "1"}); err != nil {
		t.Error("a bucket that version 0 did not have:", err)
	}
	mustClose(t, d)
	if _, opened := mustOpen(t, path); opened != (Opened{}) {
		t.Errorf("second open = %+v", opened)
	}
}

func TestFailedMigrationLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	writeV0(t, path, samples(2))
	b, err := openBolt(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketEnrollments)).Put([]byte("smime-zz"), []byte("{broken"))
	})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := Open(path, Options{Now: now}); err == nil {
			t.Fatal("a record that cannot be read was migrated")
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := examine(raw); v != 0 || err != nil {
		t.Errorf("after the failed migration: schema %d, %v", v, err)
	}
}

// stamp makes the file at path look as if a later agent had written it.
func stamp(t *testing.T, path string, s schema, more func(*transaction) error) {
	t.Helper()
	d, _ := mustOpen(t, path)
	err := d.update("stamp", func(tr *transaction) error {
		return errors.Join(tr.put(bucketMeta, keySchema, s), more(tr))
	})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
}

func TestNewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	stamp(t, path, schema{9, 9}, func(*transaction) error { return nil })
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path, Options{Now: now}); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}

	// Damaged and newer: still not ours to repair.
	before[pageHeader] ^= 1
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path, Options{Now: now}); !errors.Is(err, ErrNewer) {
		t.Errorf("Open of a damaged one: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the damaged file was changed")
	}
}

// N−1 → N → N−1: a schema that only added something stays readable and
// writable, and what it added stays in the file.
func TestDowngradeFromAnAdditiveSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	d, _ := mustOpen(t, path)
	if err := d.save(samples(3)...); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	stamp(t, path, schema{2, 1}, func(tr *transaction) error {
		if _, err := tr.tx.CreateBucket([]byte("invented")); err != nil {
			return err
		}
		return tr.put("invented", "x", map[string]int{"y": 1})
	})
	d, opened := mustOpen(t, path)
	if opened != (Opened{}) {
		t.Errorf("opened = %+v", opened)
	}
	if err := d.save(sample(7)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)

	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := examine(raw); v != 2 || err != nil {
		t.Errorf("schema %d, %v", v, err)
	}
	if _, ok := carve(raw)[[2]string{"invented", "x"}]; !ok {
		t.Error("what the later version added is gone")
	}
}
