// Package state keeps the service's record in one bbolt file: enrollments, the
// last good policy, audit events that are still to be reported, and when
// central management is to be asked next. What a method returned for survives a
// crash. Every record has a checksum and every bucket is accounted for, so a
// damaged file is noticed when it is opened, set aside, and replaced by what
// can be saved of it. There are no timers and no goroutines of our own.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"smime-agent/agent/enroll"
)

// DB is the record. Its methods may be called by several goroutines at a time;
// their errors are *[enroll.Error] of kind [enroll.Transient] with
// [enroll.CodeRecordFailed], and wrap [ErrDamaged] if the file broke while it
// was open.
type DB struct {
	bolt, lock   *bbolt.DB
	installation string
	outboxLimit  int
	broken       atomic.Bool
}

// Sync is what is remembered of the exchange with central management.
type Sync struct {
	// Next is when to ask again, by this machine's clock.
	Next time.Time `json:"next,omitzero"`
	// Offset is the server's time minus this machine's.
	Offset time.Duration `json:"offset,omitempty"`
	// Revision of the policy that is in force.
	Revision string `json:"revision,omitempty"`
	// Contact is when central management last answered, by the server's time.
	Contact time.Time `json:"contact,omitzero"`
	// Users are all who were ever present, so that policy for them stays when
	// they log out.
	Users []User `json:"users,omitempty"`
	// Orders are IDs of central management's orders that are done.
	Orders []string `json:"orders,omitempty"`
	// Mail is what looks through people's old mail found, newest last.
	Mail []enroll.MailCheck `json:"mail,omitempty"`
}

// User is an account of this machine.
type User struct {
	// ID is the system's identity of the account: "uid:1000", a SID.
	ID      string `json:"id"`
	Account string `json:"account,omitempty"`
	UPN     string `json:"upn,omitempty"`
	Locale  string `json:"locale,omitempty"`
}

// Installation is a UUID that was drawn when the record was made.
func (d *DB) Installation() string { return d.installation }

// Close lets the file go; another process may then open it.
func (d *DB) Close() error {
	var errs []error
	if d.bolt != nil {
		errs = append(errs, guard(d.bolt.Close))
	}
	errs = append(errs, d.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close record: %w", err)
	}
	return nil
}

// Save writes enrollments, and puts the audit events that tell of them into the
// outbox, in one transaction: all of it or, with an error, nothing. Of an event's
// enrollment only the leaf of the chain is kept, and the CSR is not. If the
// outbox is full the oldest events make room, which [DB.Dropped] counts. It sets
// the events' Sequence.
func (d *DB) Save(es []enroll.Enrollment, events ...AuditEvent) error {
	return d.update("save enrollments and audit events", func(t *transaction) error {
		for _, e := range es {
			if e.ID == "" {
				return errors.New("enrollment has no ID")
			}
			if err := t.put(bucketEnrollments, string(e.ID), e); err != nil {
				return err
			}
		}
		return t.send(events, d.outboxLimit)
	})
}

// Load gives all enrollments in the order of their IDs, which is that of age.
func (d *DB) Load() ([]enroll.Enrollment, error) {
	var es []enroll.Enrollment
	err := d.view("load enrollments", func(t *transaction) error {
		return t.each(bucketEnrollments, 0, func(_ string, j []byte) error {
			var e enroll.Enrollment
			if err := json.Unmarshal(j, &e); err != nil {
				return err
			}
			es = append(es, e)
			return nil
		})
	})
	return es, err
}

// SavePolicy keeps the last good policy.
func (d *DB) SavePolicy(p enroll.Policy) error {
	return d.update("save policy", func(t *transaction) error { return t.put(bucketPolicy, keyCurrent, p) })
}

// Policy gives the last good policy, nil if there was none yet.
func (d *DB) Policy() (*enroll.Policy, error) {
	var p enroll.Policy
	ok, err := d.read("read policy", bucketPolicy, &p)
	if !ok {
		return nil, err
	}
	return &p, nil
}

// SaveSync keeps s.
func (d *DB) SaveSync(s Sync) error {
	return d.update("save sync", func(t *transaction) error { return t.put(bucketSync, keyCurrent, s) })
}

// Sync gives what [DB.SaveSync] kept, the zero value if there was nothing yet.
func (d *DB) Sync() (Sync, error) {
	var s Sync
	_, err := d.read("read sync", bucketSync, &s)
	return s, err
}

func (d *DB) read(what, bucket string, into any) (bool, error) {
	var ok bool
	err := d.view(what, func(t *transaction) (err error) {
		ok, err = t.get(bucket, keyCurrent, into)
		return err
	})
	return ok && err == nil, err
}

func (d *DB) update(what string, fn func(*transaction) error) error {
	return d.run(what, func() error {
		return d.bolt.Update(func(tx *bbolt.Tx) error {
			t, err := begin(tx)
			if err != nil {
				return err
			}
			if err := fn(t); err != nil {
				return err
			}
			return t.finish()
		})
	})
}

func (d *DB) view(what string, fn func(*transaction) error) error {
	return d.run(what, func() error {
		return d.bolt.View(func(tx *bbolt.Tx) error { return fn(&transaction{tx: tx}) })
	})
}

func (d *DB) run(what string, fn func() error) error {
	err := ErrDamaged
	if !d.broken.Load() {
		err = guard(fn)
	}
	if err == nil {
		return nil
	}
	hint := "The agent cannot write its record. Check that the disk of its state folder is not full, read-only or broken."
	if errors.Is(err, ErrDamaged) {
		d.broken.Store(true)
		hint = "The agent's record is damaged. Restart the agent: it repairs the record and compares it with the key stores."
	}
	return &enroll.Error{
		Kind: enroll.Transient, Code: enroll.CodeRecordFailed, Hint: hint,
		Err: fmt.Errorf("%s: %w", what, err),
	}
}
