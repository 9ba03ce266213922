package administrator_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"smime-agent/server-stub/administrator"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/store/postgres"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// office has a register over a store, and makes certificates at times of its own.
type office struct {
	*administrator.Register
	t       *testing.T
	now     time.Time
	serials ca.Serials
}

func (o *office) make(name string) ca.Identity {
	o.now = o.now.Add(time.Second)
	return ca.Identity{Role: ca.AdminRole, Name: name, Ends: o.now.AddDate(1, 0, 0), Serial: o.serials.Next(o.now)}
}

func (o *office) check(id ca.Identity, want error) {
	o.t.Helper()
	if err := o.Check(o.t.Context(), id); !errors.Is(err, want) || want == nil && err != nil {
		o.t.Errorf("%s's: %v, want %v", id.Name, err, want)
	}
}

// revoke takes back, and the clock goes on.
func (o *office) revoke(name, serial string, want error) {
	o.t.Helper()
	o.now = o.now.Add(time.Second)
	if err := o.Revoke(o.t.Context(), name, serial, "carl", "laptop lost"); !errors.Is(err, want) || want == nil && err != nil {
		o.t.Errorf("revoke %s %s: %v, want %v", name, serial, err, want)
	}
}

// TestRegister: on either store, what is revoked is refused, be it one certificate or
// all of a name's, used before or never; and what is made afterwards is taken.
func TestRegister(t *testing.T) {
	for name, open := range map[string]func() (store.Store, error){
		"file": func() (store.Store, error) { return store.OpenBolt(filepath.Join(t.TempDir(), "records.db")) },
		"postgres": func() (store.Store, error) {
			return postgres.Open(t.Context(), postgres.Config{DSN: pgtest.Shared(t).Database(t)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			testRegister(t, db)
		})
	}
}

func testRegister(t *testing.T, db store.Store) {
	o := &office{t: t, now: time.Now()}
	o.Register = &administrator.Register{Store: db, Now: func() time.Time { return o.now }, Log: slog.New(slog.DiscardHandler)}
	first, second, unused, other := o.make("alice"), o.make("alice"), o.make("alice"), o.make("bob")
	for _, id := range []ca.Identity{first, first, second, other} {
		o.check(id, nil)
	}
	o.revoke("alice", unused.Serial.String(), administrator.ErrUnknown)
	o.revoke("bob", first.Serial.String(), administrator.ErrUnknown)
	o.revoke("alice", "no number", administrator.ErrUnknown)
	o.revoke("alice", first.Serial.String(), nil)
	o.revoke("alice", first.Serial.String(), nil)
	o.check(first, administrator.ErrRevoked)
	o.check(second, nil)
	o.revoke("alice", "", nil)
	for _, id := range []ca.Identity{first, second, unused} {
		o.check(id, administrator.ErrRevoked)
	}
	fresh := o.make("alice")
	o.check(fresh, nil)
	o.check(other, nil)
	list, err := o.List()
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]bool{}
	for _, a := range list {
		if states[a.Serial] = !a.Revoked.IsZero(); states[a.Serial] && (a.By != "carl" || a.Reason != "laptop lost") {
			t.Errorf("it is not said who and why: %+v", a)
		}
	}
	want := map[string]bool{first.Serial.String(): true, second.Serial.String(): true, fresh.Serial.String(): false, other.Serial.String(): false, "": true}
	for serial, revoked := range want {
		if got, listed := states[serial]; !listed || got != revoked {
			t.Errorf("%q is listed: %v, revoked: %v, want %v", serial, listed, got, revoked)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d are listed, want %d", len(list), len(want))
	}
}

// broken is a store that takes nothing, and another that gives nothing either.
type broken struct {
	store.Store
	blind bool
}

var errBroken = errors.New("no space left")

func (b broken) Update(context.Context, func(store.Tx) error) error { return errBroken }

func (b broken) View(read func(store.Tx) error) error {
	if b.blind {
		return errBroken
	}
	return b.Store.View(read)
}

// TestBrokenStore: an administrator sees why nothing can be recorded, though his
// certificate cannot be noted; where nobody can say whether it was revoked, it is refused.
func TestBrokenStore(t *testing.T) {
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	o := &office{t: t, now: time.Now()}
	for _, blind := range []bool{false, true} {
		o.Register = &administrator.Register{Store: broken{Store: db, blind: blind}, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		var want error
		if blind {
			want = errBroken
		}
		o.check(o.make("alice"), want)
	}
}
