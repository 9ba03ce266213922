package storetest

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"smime-agent/server-stub/store"
)

// glances see what views see, of one moment.
func glances(t *testing.T, open Open) {
	s := opened(t, open)
	err := s.Update(t.Context(), func(tx store.Tx) error {
		for n := range 300 {
			key := append([]byte{255, byte(n / 100)}, number(n)...)
			if err := errors.Join(tx.Put(store.Orders, key, number(n)), tx.Put(store.Ready, key, nil)); err != nil {
				return err
			}
		}
		return errors.Join(tx.Put(store.Meta, []byte("one"), []byte("1")), tx.Put(store.Devices, []byte("one"), []byte{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	refs := []store.Ref{{Bucket: store.Meta, Key: []byte("one")}, {Bucket: store.Devices, Key: []byte("one")}, {Bucket: store.Meta, Key: []byte("none")}}
	groups := []store.Group{{Bucket: store.Orders, Prefix: []byte{255, 1}}, {Bucket: store.Ready, Prefix: []byte{255}}, {Bucket: store.Events}, {Bucket: store.Meta}}
	err = store.Glance(s, refs, groups, func(tx store.Tx) error { seeNamed(t, tx); return nil })
	if err != nil {
		t.Error(err)
	}
	if err := store.Glance(s, refs, nil, func(store.Tx) error { return errUsed }); !errors.Is(err, errUsed) {
		t.Errorf("the reader's own error becomes %v", err)
	}
}

// seeNamed reads what [glances] names.
func seeNamed(t *testing.T, tx store.Tx) {
	t.Helper()
	if got := string(tx.Get(store.Meta, []byte("one"))); got != "1" {
		t.Errorf("a record is %q", got)
	}
	if got := tx.Get(store.Devices, []byte("one")); got == nil || len(got) != 0 {
		t.Errorf("an empty record is %v", got)
	}
	if got := tx.Get(store.Meta, []byte("none")); got != nil {
		t.Errorf("what is not there is %v", got)
	}
	if got := tx.Get(store.Orders, append([]byte{255, 1}, number(150)...)); !bytes.Equal(got, number(150)) {
		t.Errorf("a record of a group is %x", got)
	}
	for _, c := range []struct {
		bucket       store.Bucket
		prefix, from []byte
		want         int
	}{
		{store.Orders, []byte{255, 1}, nil, 100}, {store.Orders, []byte{255, 1}, append([]byte{255, 1}, number(190)...), 10},
		{store.Ready, []byte{255}, nil, 300}, {store.Ready, []byte{255, 2}, nil, 100}, {store.Events, nil, nil, 0}, {store.Meta, nil, nil, 1},
	} {
		var got [][]byte
		tx.Range(c.bucket, c.prefix, c.from, func(key, _ []byte) bool { got = append(got, bytes.Clone(key)); return true })
		if len(got) != c.want || !slices.IsSortedFunc(got, bytes.Compare) {
			t.Errorf("%s, prefix %x from %x: %d records, want %d, in order", c.bucket, c.prefix, c.from, len(got), c.want)
		}
	}
	if tx.Put(store.Meta, []byte("one"), nil) == nil || tx.Delete(store.Meta, []byte("one")) == nil {
		t.Error("a glance writes")
	}
}
