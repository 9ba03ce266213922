package crl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/crl"
	"smime-agent/server-stub/store"
)

// signer writes lists that say what is in them.
type signer struct{}

func (signer) RevocationList(revoked []ca.Revocation, number int64, now time.Time) ([]byte, error) {
	out := fmt.Sprintf("%d %s", number, now.UTC().Format(time.RFC3339))
	for _, r := range revoked {
		out += fmt.Sprintf(" %d:%s", r.Serial[ca.SerialSize-1], r.Reason)
	}
	return []byte(out), nil
}

// clock is a time that the test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// away is a store that does not answer while it is told not to.
type away struct {
	store.Store
	failing bool
}

func (a *away) View(read func(store.Tx) error) error {
	if a.failing {
		return store.ErrUnavailable
	}
	return a.Store.View(read)
}

func (a *away) Update(ctx context.Context, write func(store.Tx) error) error {
	if a.failing {
		return store.ErrUnavailable
	}
	return a.Store.Update(ctx, write)
}

func (a *away) Snapshot(to io.Writer) error { return a.Store.Snapshot(to) }

type fixture struct {
	*clock
	db *away
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &fixture{clock: &clock{at: time.Date(2028, 2, 28, 12, 0, 0, 0, time.UTC)}, db: &away{Store: db}}
}

func (f *fixture) list(of string, ahead time.Duration) *crl.List {
	return &crl.List{Store: f.db, Signer: signer{}, Of: of, Now: func() time.Time { return f.now().Add(ahead) }, Log: slog.New(slog.DiscardHandler)}
}

func (f *fixture) revoke(t *testing.T, serial byte, reason string, ends time.Time) {
	t.Helper()
	err := f.db.Update(t.Context(), func(tx store.Tx) error {
		key := make([]byte, ca.SerialSize)
		key[ca.SerialSize-1] = serial
		mark := store.Mark{RevokedAt: f.now(), Reason: reason, NotAfter: ends}
		return errors.Join(store.PutJSON(tx, store.Marks, key, mark), crl.NoteRevoked(tx))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, l *crl.List) (number int64, entries string) {
	t.Helper()
	der, err := l.Get()
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(der), "Z")
	if _, err := fmt.Sscan(head, &number); err != nil {
		t.Fatal(err)
	}
	return number, strings.TrimSpace(rest)
}

// TestEntries: a certificate stands on the list from its revocation until one list
// after its end (RFC 5280, 3.3), with its reason.
func TestEntries(t *testing.T) {
	f := newFixture(t)
	l := f.list("a", 0)
	if _, got := get(t, l); got != "" {
		t.Errorf("the first list has %q", got)
	}
	f.revoke(t, 1, "keyCompromise", f.now().Add(24*time.Hour))
	f.revoke(t, 2, "superseded", f.now().Add(300*24*time.Hour))
	if _, got := get(t, l); got != "1:keyCompromise 2:superseded" {
		t.Errorf("after two revocations: %q", got)
	}
	f.move(8*24*time.Hour - time.Second)
	if _, got := get(t, l); got != "1:keyCompromise 2:superseded" {
		t.Errorf("a list's life after the end: %q", got)
	}
	f.move(25 * time.Hour)
	if _, got := get(t, l); got != "2:superseded" {
		t.Errorf("after that: %q", got)
	}
}

// TestNumbers: they only grow, whatever clocks do and whoever makes the next list;
// one that is fresh is handed out by all.
func TestNumbers(t *testing.T) {
	f := newFixture(t)
	first, second := f.list("a", 0), f.list("a", 2*time.Minute) // its clock is ahead
	last, _ := get(t, first)
	if n, _ := get(t, second); n != last {
		t.Errorf("list %d beside %d", n, last)
	}
	for _, c := range []struct {
		name string
		by   *crl.List
		step func()
	}{
		{"revoked at the one ahead", second, func() { f.revoke(t, 1, "superseded", f.now().AddDate(1, 0, 0)) }},
		{"revoked at the one behind", first, func() { f.revoke(t, 2, "superseded", f.now().AddDate(1, 0, 0)) }},
		{"a day later", first, func() { f.move(24*time.Hour + 3*time.Minute) }},
		{"the clock a year back", first, func() { f.move(-365 * 24 * time.Hour) }},
		{"revoked a year back", second, func() { f.revoke(t, 3, "superseded", f.now().AddDate(1, 0, 0)) }},
		{"another key, the same name", f.list("b", 0), func() {}},
		{"the first key again", first, func() {}},
	} {
		c.step()
		n, _ := get(t, c.by)
		if n <= last {
			t.Errorf("%s: list %d follows %d", c.name, n, last)
		}
		if again, _ := get(t, c.by); again != n {
			t.Errorf("%s: list %d is made again as %d", c.name, n, again)
		}
		last = n
	}
}

// TestOneForAll: who asks at once, at several servers, gets one list.
func TestOneForAll(t *testing.T) {
	f := newFixture(t)
	lists := []*crl.List{f.list("a", 0), f.list("a", 0), f.list("a", 0)}
	f.revoke(t, 1, "superseded", f.now().AddDate(1, 0, 0))
	var wg sync.WaitGroup
	got := make([]string, 12)
	for i := range got {
		wg.Go(func() {
			der, err := lists[i%len(lists)].Get()
			if err != nil {
				t.Error(err)
			}
			got[i] = string(der)
		})
	}
	wg.Wait()
	for _, l := range got {
		if l != got[0] {
			t.Errorf("%q beside %q", l, got[0])
		}
	}
}

// TestWithoutRecords: the last list has to do while the record cannot be read, as
// long as it is in force, and no longer.
func TestWithoutRecords(t *testing.T) {
	f := newFixture(t)
	l := f.list("a", 0)
	f.db.failing = true
	if der, err := l.Get(); !errors.Is(err, store.ErrUnavailable) || der != nil {
		t.Errorf("without any list: %q, %v", der, err)
	}
	f.db.failing = false
	n, _ := get(t, l)
	f.db.failing = true
	f.move(ca.CRLLife - time.Second)
	if got, _ := get(t, l); got != n {
		t.Errorf("list %d, want the last, %d", got, n)
	}
	f.move(time.Second)
	if _, err := l.Get(); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a list that is over is handed out: %v", err)
	}
}
