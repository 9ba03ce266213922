// Package crl keeps the issuing CA's revocation list: one for all servers over a
// store, with numbers that only grow, made anew when somebody asks for it after
// something was revoked.
package crl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// Signer signs a list (DER); [ca.Issuer] does.
type Signer interface {
	RevocationList(revoked []ca.Revocation, number int64, now time.Time) ([]byte, error)
}

// List is the list that is handed out. It is kept in the store too, where the
// other servers find it.
type List struct {
	Store  store.Store
	Signer Signer
	// Of is the fingerprint of the signer's certificate: another one's list is not handed out.
	Of  string
	Now func() time.Time
	Log *slog.Logger

	mu   sync.Mutex
	head head
	der  []byte
}

// head says which list is in the record.
type head struct {
	Number int64     `json:"number"`
	Made   time.Time `json:"made"`
	// Revocations is how many there had been when it was made.
	Revocations uint64 `json:"revocations"`
	Of          string `json:"of"`
}

// good says that nothing was revoked since, and that the list is not old.
func (l *List) good(h head, revocations uint64, now time.Time) bool {
	age := now.Sub(h.Made)
	return h.Number > 0 && h.Of == l.Of && h.Revocations == revocations && age < maxAge && age > -clockSkew
}

// errRaced: another server made a list at the same time.
var errRaced = errors.New("other servers made lists at the same time")

const (
	metaRevocations = "crl.revocations"
	metaHead        = "crl.head"
	metaList        = "crl.list"
	// maxAge is when a new list is made although nothing was revoked.
	maxAge = 24 * time.Hour
	// clockSkew is how far servers' clocks may be apart; a list from later than that is made anew.
	clockSkew = 5 * time.Minute
	// makeTime bounds the making of a list, maxTries how often servers get in each other's way.
	makeTime = 20 * time.Second
	maxTries = 3
)

func revocationsIn(tx store.Tx) uint64 {
	raw := tx.Get(store.Meta, []byte(metaRevocations))
	if len(raw) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(raw)
}

// NoteRevoked has the next who asks for the list make a new one.
func NoteRevoked(tx store.Tx) error {
	return tx.Put(store.Meta, []byte(metaRevocations), binary.BigEndian.AppendUint64(nil, revocationsIn(tx)+1))
}

// Get gives the list (DER). While the record cannot be
// read, the last one that is in force has to do.
func (l *List) Get() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.current()
	if age := l.Now().Sub(l.head.Made); err != nil && l.der != nil && age >= 0 && age < ca.CRLLife {
		l.Log.Warn("the last revocation list is handed out", "error", err)
		return l.der, nil
	}
	return l.der, err
}

// current has the cache hold the list of now.
func (l *List) current() error {
	for range maxTries {
		var have head
		var revocations uint64
		now := l.Now()
		err := l.Store.View(func(tx store.Tx) error {
			revocations = revocationsIn(tx)
			if _, err := store.GetJSON(tx, store.Meta, []byte(metaHead), &have); err != nil {
				return err
			}
			if l.good(have, revocations, now) && have.Number != l.head.Number {
				l.head, l.der = have, append([]byte(nil), tx.Get(store.Meta, []byte(metaList))...)
			}
			return nil
		})
		if err != nil || l.good(have, revocations, now) {
			return err
		}
		if err := l.make(have.Number, now); !errors.Is(err, errRaced) {
			return err
		}
	}
	return fmt.Errorf("make revocation list: %w", errRaced)
}

// make signs a list and files it, unless another server did since last was read.
func (l *List) make(last int64, now time.Time) error {
	// A time, so that a record that was lost does not set the number back; and
	// never less than the last, since servers' clocks differ.
	next := head{Number: max(now.UnixMilli(), last+1), Made: now, Of: l.Of}
	var revoked []ca.Revocation
	err := l.Store.View(func(tx store.Tx) error {
		revoked, next.Revocations = nil, revocationsIn(tx)
		return store.EachJSON(tx, store.Marks, nil, func(key []byte, mark store.Mark) bool {
			// An entry stays for one list more after the certificate's end (RFC 5280, 3.3).
			if !mark.RevokedAt.IsZero() && now.Before(mark.NotAfter.Add(ca.CRLLife)) {
				r := ca.Revocation{At: mark.RevokedAt, Reason: mark.Reason}
				copy(r.Serial[:], key)
				revoked = append(revoked, r)
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	der, err := l.Signer.RevocationList(revoked, next.Number, now)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), makeTime)
	defer cancel()
	err = l.Store.Update(ctx, func(tx store.Tx) error {
		var have head
		if _, err := store.GetJSON(tx, store.Meta, []byte(metaHead), &have); err != nil {
			return err
		}
		if have.Number != last {
			return errRaced
		}
		return errors.Join(store.PutJSON(tx, store.Meta, []byte(metaHead), next), tx.Put(store.Meta, []byte(metaList), der))
	})
	if err != nil {
		return err
	}
	l.head, l.der = next, der
	return nil
}
