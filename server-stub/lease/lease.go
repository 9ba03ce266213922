// Package lease has one server at a time do what is to be done once, over a store
// that several share.
package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"smime-agent/server-stub/store"
)

// ErrHeld: another server is at it.
var ErrHeld = errors.New("another server is at it")

// Lease is a right that its holder prolongs, and that others get once it has
// given it back, or after Life if it died. Their clocks must not differ by much.
type Lease struct {
	Store store.Store
	Name  string
	Life  time.Duration
	Now   func() time.Time

	holder string
}

type record struct {
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
}

// New makes a lease that nobody has yet.
func New(s store.Store, name string, life time.Duration, now func() time.Time) *Lease {
	return &Lease{Store: s, Name: name, Life: life, Now: now, holder: rand.Text()}
}

// Hold takes the lease, or prolongs it. [ErrHeld] while another has it. A server
// that is alone with its store always gets it.
func (l *Lease) Hold(ctx context.Context) error {
	if _, shared := l.Store.(store.Shared); !shared {
		return nil
	}
	return l.Store.Update(ctx, func(tx store.Tx) error {
		var r record
		if _, err := store.GetJSON(tx, store.Meta, []byte(l.Name), &r); err != nil {
			return err
		}
		now := l.Now()
		if r.Holder != l.holder && now.Before(r.Until) {
			return ErrHeld
		}
		return store.PutJSON(tx, store.Meta, []byte(l.Name), record{Holder: l.holder, Until: now.Add(l.Life)})
	})
}

// Release gives the lease back, if it is still ours.
func (l *Lease) Release(ctx context.Context) error {
	if _, shared := l.Store.(store.Shared); !shared {
		return nil
	}
	return l.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error {
		var r record
		if _, err := store.GetJSON(tx, store.Meta, []byte(l.Name), &r); err != nil || r.Holder != l.holder {
			return err
		}
		return tx.Delete(store.Meta, []byte(l.Name))
	})
}
