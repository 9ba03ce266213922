// Package storetest is what every store of the reference server has to keep: one
// suite for all of them.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"smime-agent/server-stub/store"
)

// Open opens the same records each time it is called.
type Open func(t testing.TB) store.Store

// Run runs the suite; fresh makes empty records.
func Run(t *testing.T, fresh func(t testing.TB) Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"all or nothing", allOrNothing},
		{"updates see each other", seeEachOther},
		{"overload and close", overloadAndClose},
		{"one token, 64 racers", race},
		{"records", records},
		{"ranges", ranges},
		{"like a map", likeMap},
		{"views are consistent", consistent},
		{"glances", glances},
		{"who gave up", gaveUp},
		{"close keeps what was queued", closeKeeps},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, fresh(t)) })
	}
}

func opened(t testing.TB, open Open) store.Store {
	t.Helper()
	s := open(t)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func number(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func get(t testing.TB, s store.Store, bucket store.Bucket, key []byte) []byte {
	t.Helper()
	var out []byte
	err := s.View(func(tx store.Tx) error { out = bytes.Clone(tx.Get(bucket, key)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func put(t testing.TB, s store.Store, bucket store.Bucket, key, value []byte) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(bucket, key, value) }); err != nil {
		t.Fatal(err)
	}
}

func keys(t testing.TB, s store.Store, bucket store.Bucket, prefix, from []byte) (out [][]byte) {
	t.Helper()
	err := s.View(func(tx store.Tx) error {
		out = nil
		tx.Range(bucket, prefix, from, func(key, _ []byte) bool { out = append(out, bytes.Clone(key)); return true })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// allOrNothing mixes writes that fail before and after they put something with
// good ones, so that all kinds share commits.
func allOrNothing(t *testing.T, open Open) {
	s := opened(t, open)
	refused := errors.New("refused")
	var wg sync.WaitGroup
	for n := range 300 {
		wg.Go(func() {
			err := s.Update(t.Context(), func(tx store.Tx) error {
				if n%3 == 1 {
					return refused
				}
				if err := tx.Put(store.Certificates, number(n), []byte("x")); err != nil {
					return err
				}
				if n%3 == 2 {
					return refused
				}
				return nil
			})
			if (n%3 == 0) != (err == nil) || err != nil && !errors.Is(err, refused) {
				t.Errorf("write %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := opened(t, open)
	if n := len(keys(t, again, store.Certificates, nil, nil)); n != 100 {
		t.Errorf("%d records after reopening, want 100", n)
	}
}

func seeEachOther(t *testing.T, open Open) {
	s := opened(t, open)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := s.Update(t.Context(), func(tx store.Tx) error {
				n := 0
				if data := tx.Get(store.Meta, []byte("n")); data != nil {
					n = int(binary.BigEndian.Uint64(data))
				}
				return tx.Put(store.Meta, []byte("n"), number(n+1))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := get(t, s, store.Meta, []byte("n")); !bytes.Equal(got, number(200)) {
		t.Errorf("counted %x, want 200", got)
	}
}

// queue is more than any store lets wait.
const queue = 2048

func overloadAndClose(t *testing.T, open Open) {
	s := opened(t, open)
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Update(t.Context(), func(store.Tx) error { once.Do(func() { close(held) }); <-hold; return nil })
	})
	<-held
	results := make(chan error, queue+10)
	for range queue + 10 {
		wg.Go(func() { results <- s.Update(t.Context(), func(store.Tx) error { return nil }) })
	}
	for range 10 {
		if err := <-results; !errors.Is(err, store.ErrOverloaded) {
			t.Errorf("a write over the bound gives %v", err)
		}
	}
	close(hold)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a write after the close gives %v", err)
	}
	if err := s.View(func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a read after the close gives %v", err)
	}
}

var errUsed = errors.New("used up")

// race burns tokens of one use, each by 64 at once.
func race(t *testing.T, open Open) {
	s := opened(t, open)
	Race(t, 50, func(int) store.Store { return s })
}

// Race lets 64 race for each of some tokens, over the stores that of gives them:
// exactly one wins each, and is recorded as the winner.
func Race(t testing.TB, rounds int, of func(racer int) store.Store) {
	t.Helper()
	for range rounds {
		token := []byte(rand.Text())
		put(t, of(0), store.Tokens, token, []byte{0})
		var won atomic.Int64
		var winner atomic.Int64
		var wg sync.WaitGroup
		for racer := range 64 {
			wg.Go(func() {
				err := of(racer).Update(t.Context(), func(tx store.Tx) error { return burn(tx, token, racer) })
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(int64(racer))
				case !errors.Is(err, errUsed):
					t.Errorf("racer %d: %v", racer, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 64 won one token", won.Load())
		}
		if got := get(t, of(0), store.Joins, token); !bytes.Equal(got, number(int(winner.Load()))) {
			t.Errorf("recorded is %x, acknowledged %d", got, winner.Load())
		}
	}
}

func burn(tx store.Tx, token []byte, racer int) error {
	if used := tx.Get(store.Tokens, token); len(used) != 1 || used[0] != 0 {
		return errUsed
	}
	if err := tx.Put(store.Tokens, token, []byte{1}); err != nil {
		return err
	}
	return tx.Put(store.Joins, token, number(racer))
}

func records(t *testing.T, open Open) {
	s := opened(t, open)
	large := make([]byte, 3<<20)
	_, _ = rand.Read(large)
	odd := []byte{0, 255, 0, '\'', '\\', 0}
	put(t, s, store.Meta, []byte("large"), large)
	put(t, s, store.Meta, odd, []byte{})
	if !bytes.Equal(get(t, s, store.Meta, []byte("large")), large) {
		t.Error("a large value comes back changed")
	}
	err := s.View(func(tx store.Tx) error {
		if got := tx.Get(store.Meta, odd); got == nil || len(got) != 0 {
			t.Errorf("an empty value is %v", got)
		}
		if tx.Get(store.Tokens, odd) != nil || tx.Get(store.Meta, []byte("none")) != nil {
			t.Error("what is not there is found")
		}
		if tx.Put(store.Meta, odd, odd) == nil || tx.Delete(store.Meta, odd) == nil {
			t.Error("a view writes")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = s.Update(t.Context(), func(tx store.Tx) error {
		err := errors.Join(tx.Delete(store.Meta, odd), tx.Delete(store.Meta, []byte("none")))
		if tx.Get(store.Meta, odd) != nil {
			t.Error("a write does not see its own deletion")
		}
		return err
	})
	if err != nil || get(t, s, store.Meta, odd) != nil {
		t.Errorf("a deleted record is there, %v", err)
	}
}

func ranges(t *testing.T, open Open) {
	s := opened(t, open)
	for _, bucket := range store.Buckets() { // each bucket is one of its own
		put(t, s, bucket, []byte("only"), []byte(bucket))
	}
	for _, bucket := range store.Buckets() {
		if got := keys(t, s, bucket, nil, nil); len(got) != 1 || string(get(t, s, bucket, got[0])) != string(bucket) {
			t.Errorf("bucket %s has %q", bucket, got)
		}
	}
	err := s.Update(t.Context(), func(tx store.Tx) error {
		for n := range 5000 {
			if err := tx.Put(store.Events, append([]byte{255, byte(n / 1000)}, number(n)...), number(n)); err != nil {
				return err
			}
		}
		seen := 0
		tx.Range(store.Events, []byte{255}, nil, func(_, _ []byte) bool { seen++; return seen < 4000 })
		if seen != 4000 {
			t.Errorf("a range sees %d of its own transaction's writes, want 4000", seen)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefix, from []byte
		want         int
	}{
		{nil, nil, 5001}, {[]byte{255}, nil, 5000}, {[]byte{255, 2}, nil, 1000}, {[]byte{255, 9}, nil, 0}, {[]byte{255, 255}, nil, 0},
		{nil, append([]byte{255, 4}, number(4990)...), 10}, {[]byte{255, 3}, []byte{255, 4}, 0}, {[]byte{255, 3}, []byte{255}, 1000},
		{[]byte{255, 3}, append([]byte{255, 3}, number(3500)...), 500},
	} {
		got := keys(t, s, store.Events, c.prefix, c.from)
		if len(got) != c.want || !slices.IsSortedFunc(got, bytes.Compare) {
			t.Errorf("prefix %x from %x: %d keys, want %d, in order", c.prefix, c.from, len(got), c.want)
		}
	}
}

// likeMap does the same at random to the store and to a map.
func likeMap(t *testing.T, open Open) {
	s := opened(t, open)
	seed := mathrand.Uint64() //nolint:gosec // to be played again
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0)) //nolint:gosec // to be played again
	model := map[string]string{}
	for range 200 {
		fail := random.IntN(4) == 0
		next := maps.Clone(model)
		type step struct{ key, value string }
		var steps []step
		for range random.IntN(8) {
			st := step{key: fmt.Sprintf("%02x", random.IntN(64)), value: fmt.Sprint(random.IntN(1000))}
			if random.IntN(3) == 0 {
				st.value = ""
			}
			steps = append(steps, st)
			if st.value == "" {
				delete(next, st.key)
			} else {
				next[st.key] = st.value
			}
		}
		from := fmt.Sprintf("%02x", random.IntN(64))
		err := s.Update(t.Context(), func(tx store.Tx) error {
			for _, st := range steps {
				var err error
				if st.value == "" {
					err = tx.Delete(store.Marks, []byte(st.key))
				} else {
					err = tx.Put(store.Marks, []byte(st.key), []byte(st.value))
				}
				if err != nil {
					return err
				}
			}
			compare(t, tx, next, from)
			if fail {
				return errUsed
			}
			return nil
		})
		if fail != (err != nil) {
			t.Fatal(err)
		}
		if !fail {
			model = next
		}
		if err := s.View(func(tx store.Tx) error { compare(t, tx, model, from); return nil }); err != nil || t.Failed() {
			t.Fatal("it ends here: ", err)
		}
	}
}

func compare(t *testing.T, tx store.Tx, model map[string]string, from string) {
	t.Helper()
	var want, got []string
	for k, v := range model {
		if k >= from {
			want = append(want, k+"="+v)
		}
	}
	slices.Sort(want)
	tx.Range(store.Marks, nil, []byte(from), func(key, value []byte) bool {
		if again := tx.Get(store.Marks, key); !bytes.Equal(again, value) {
			t.Errorf("%s is %s, and then %s", key, value, again)
		}
		got = append(got, string(key)+"="+string(value))
		return true
	})
	if !slices.Equal(got, want) { // no end of the test here: this may be the store's own goroutine
		t.Errorf("from %s: %v, want %v", from, got, want)
	}
}

// consistent reads two records that are always changed together.
func consistent(t *testing.T, open Open) {
	s := opened(t, open)
	pair := func(tx store.Tx, n int) error {
		return errors.Join(tx.Put(store.Devices, []byte("d"), number(n)), tx.Put(store.Statuses, []byte("d"), number(n)))
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { return pair(tx, 0) }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range 200 {
			if err := s.Update(t.Context(), func(tx store.Tx) error { return pair(tx, n) }); err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for range 100 {
				err := s.View(func(tx store.Tx) error {
					first := bytes.Clone(tx.Get(store.Devices, []byte("d")))
					if second := tx.Get(store.Statuses, []byte("d")); !bytes.Equal(first, second) {
						t.Errorf("one view sees %x and %x", first, second)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// gaveUp: a caller whose context ends gets its error at once, and the store goes on.
func gaveUp(t *testing.T, open Open) {
	s := opened(t, open)
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Update(t.Context(), func(store.Tx) error { once.Do(func() { close(held) }); <-hold; return nil })
	})
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		err := s.Update(ctx, func(tx store.Tx) error { return tx.Put(store.Meta, []byte("late"), []byte("x")) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up gets %v", err)
		}
		close(hold)
	})
	cancel()
	wg.Wait()
	put(t, s, store.Meta, []byte("next"), []byte("x"))
}

// closeKeeps: each write that was acknowledged is there after a close in its midst,
// and none that came too late.
func closeKeeps(t *testing.T, open Open) {
	s := opened(t, open)
	var acknowledged, late sync.Map
	var wg sync.WaitGroup
	begun := make(chan struct{}, 200)
	for n := range 200 {
		wg.Go(func() {
			begun <- struct{}{}
			err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Keys, number(n), number(n)) })
			switch {
			case err == nil:
				acknowledged.Store(n, true)
			case errors.Is(err, store.ErrClosed):
				late.Store(n, true)
			default:
				t.Errorf("write %d: %v", n, err)
			}
		})
	}
	for range 100 {
		<-begun
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	again := opened(t, open)
	acknowledged.Range(func(n, _ any) bool {
		if get(t, again, store.Keys, number(n.(int))) == nil { //nolint:forcetypeassert // only ints are in it
			t.Errorf("write %d was acknowledged and is lost", n)
		}
		return true
	})
	late.Range(func(n, _ any) bool {
		if get(t, again, store.Keys, number(n.(int))) != nil { //nolint:forcetypeassert // only ints are in it
			t.Errorf("write %d is there, and its caller was told that the store is closed", n)
		}
		return true
	})
}
