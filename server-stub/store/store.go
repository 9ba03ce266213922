// Package store keeps the reference server's records: a narrow key-value
// interface with transactions, and bbolt behind it; package postgres has another
// store, which several servers can share. What Update returned for is on the disk.
package store

import (
	"context"
	"errors"
	"io"
)

// Bucket is one ordered map of keys to values.
type Bucket string

// The buckets. Keys that grow with time are appended, which costs a fraction of
// the work and space of keys at random places.
const (
	Meta         Bucket = "meta"         // name → value
	Tokens       Bucket = "tokens"       // SHA-256 of the token → token
	Joins        Bucket = "joins"        // SHA-256 of token and key → device ID
	Devices      Bucket = "devices"      // device ID → device
	Statuses     Bucket = "statuses"     // device ID → last report
	Certificates Bucket = "certificates" // serial number → request and certificate
	Enrollments  Bucket = "enrollments"  // device ID, hash of enrollment ID → serial number
	Keys         Bucket = "keys"         // hash of the public key → serial number
	Marks        Bucket = "marks"        // serial number → revoked or replaced
	Pending      Bucket = "pending"      // serial number of what waits for an administrator
	Ready        Bucket = "ready"        // device ID, serial number of what waits for the agent
	Orders       Bucket = "orders"       // device ID, order ID → order
	Events       Bucket = "events"       // device ID, event ID → event
	Reminders    Bucket = "reminders"    // serial number, days before the end → reminder
	Challenges   Bucket = "challenges"   // serial number → challenge
	Mailboxes    Bucket = "mailboxes"    // device ID, hash of user and mailbox → confirmed
	Proofs       Bucket = "proofs"       // device ID, order ID → times of the proofs before the order
	Publications Bucket = "publications" // serial number of the signer → value for the directory
	Directory    Bucket = "directory"    // mailbox in lower case → what became of it in the directory
	Forwards     Bucket = "forwards"     // serial number of what another CA is asked for → when it may be asked again
	Roster       Bucket = "roster"       // device ID → what a listing needs of devices and statuses
	// Administrators has "c", serial number → a certificate that was used or revoked,
	// and "n", name → all of a name's that were revoked.
	Administrators Bucket = "administrators"
)

// Buckets lists them all.
func Buckets() []Bucket {
	return []Bucket{
		Meta, Tokens, Joins, Devices, Statuses, Certificates, Enrollments, Keys,
		Marks, Pending, Ready, Orders, Events, Reminders, Challenges,
		Mailboxes, Proofs, Publications, Directory, Forwards, Roster, Administrators,
	}
}

var (
	// ErrOverloaded: more writes wait than may; come back later.
	ErrOverloaded = errors.New("the store's queue is full")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("the store is closed")
	// ErrUnavailable: the database does not answer. What was to be written may be
	// there nevertheless, if the answer to a commit was lost: who repeats the call finds out.
	ErrUnavailable = errors.New("the database does not answer")
	// ErrLost: the database has not what it had acknowledged, as after a takeover by a standby
	// that it had not waited for, or from an older copy. Only a restart of the server accepts that.
	ErrLost = errors.New("the database has lost what it had acknowledged")
	// ErrNoSnapshot: the store is copied by the database's own tools.
	ErrNoSnapshot = errors.New("the records are in PostgreSQL")
)

// Tx is what can be done in one transaction. Slices it hands out are valid
// until the transaction ends and must not be changed.
type Tx interface {
	// Get gives nil for a key that is not there.
	Get(bucket Bucket, key []byte) []byte
	Put(bucket Bucket, key, value []byte) error
	Delete(bucket Bucket, key []byte) error
	// Range goes through the keys with the prefix in order, from the first that
	// is not less than from, until visit says false.
	Range(bucket Bucket, prefix, from []byte, visit func(key, value []byte) bool)
}

// Store runs transactions.
type Store interface {
	// View reads one consistent state.
	View(read func(Tx) error) error
	// Update writes all that write puts, or nothing if write gives an error,
	// and returns once it is on the disk. Write may be run more than once and must
	// set whatever it leaves outside anew each time. Errors: write's own,
	// [ErrOverloaded], [ErrClosed], [ErrUnavailable], ctx's, and those of the disk. After ctx's error
	// the writes may or may not be there.
	Update(ctx context.Context, write func(Tx) error) error
	// Snapshot writes a consistent copy of everything, in the form that the store
	// opens, while others go on. [ErrNoSnapshot] where the database has its own tools.
	Snapshot(to io.Writer) error
	Close() error
}
