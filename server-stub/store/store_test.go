package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, path string) *Bolt {
	t.Helper()
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func number(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func count(t testing.TB, s Store, bucket Bucket) int {
	t.Helper()
	n := 0
	err := s.View(func(tx Tx) error {
		tx.Range(bucket, nil, nil, func([]byte, []byte) bool { n++; return true })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUpdateIsAllOrNothing mixes writes that fail before and after they put
// something with good ones, so that all kinds share commits.
func TestUpdateIsAllOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	b := open(t, path)
	refused := errors.New("refused")
	var wg sync.WaitGroup
	for n := range 300 {
		wg.Go(func() {
			err := b.Update(t.Context(), func(tx Tx) error {
				if n%3 == 1 {
					return refused
				}
				if err := tx.Put(Certificates, number(n), []byte("x")); err != nil {
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
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, path)
	if n := count(t, again, Certificates); n != 100 {
		t.Errorf("%d records after reopening, want 100", n)
	}
}

func TestUpdatesSeeEachOther(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "records.db"))
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := b.Update(t.Context(), func(tx Tx) error {
				n := 0
				if data := tx.Get(Meta, []byte("n")); data != nil {
					n = int(binary.BigEndian.Uint64(data))
				}
				return tx.Put(Meta, []byte("n"), number(n+1))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_ = b.View(func(tx Tx) error {
		if got := tx.Get(Meta, []byte("n")); !bytes.Equal(got, number(200)) {
			t.Errorf("counted %x, want 200", got)
		}
		return nil
	})
}

func TestOverloadAndClose(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "records.db"))
	hold, held := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = b.Update(t.Context(), func(Tx) error { close(held); <-hold; return nil })
	})
	<-held
	results := make(chan error, queueLength+10)
	for range queueLength + 10 {
		wg.Go(func() { results <- b.Update(t.Context(), func(Tx) error { return nil }) })
	}
	for range 10 {
		if err := <-results; !errors.Is(err, ErrOverloaded) {
			t.Fatalf("a write over the bound gives %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	close(hold)
	wg.Wait()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Update(ctx, func(Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("a write after the close gives %v", err)
	}
	if err := b.View(func(Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("a read after the close gives %v", err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	open(t, path)
	if second, err := OpenBolt(path); err == nil {
		_ = second.Close()
		t.Error("a second server opens the same records")
	}
}

func TestRequestForm(t *testing.T) {
	r := &Request{
		Device: "d1", Enrollment: "smime-1", CSRHash: []byte{1, 2}, Profile: "employee-dual", User: "uid:1000", Store: "nss:default",
		Protection: "software", Replaces: "smime-0", Reason: "first", Department: "销售", State: RequestPending,
		Submitted: time.UnixMilli(1790000000123).UTC(), Refusal: "no", Certificate: []byte{3}, CSR: []byte{4, 5},
		Mailboxes: []string{"a@example.com", "b@example.com"}, Account: "alice", Authority: "est", Issuers: [][]byte{{6}, {7}},
	}
	got, err := DecodeRequest(r.Encode())
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("decoded %+v, %v, want %+v", got, err, r)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add((&Request{Device: "d1", Submitted: time.UnixMilli(1)}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRequest(data)
		if err != nil {
			return
		}
		again, err := DecodeRequest(r.Encode())
		if err != nil {
			t.Fatalf("%+v does not survive: %v", r, err)
		}
		if again.Device != r.Device || !bytes.Equal(again.Certificate, r.Certificate) {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}
