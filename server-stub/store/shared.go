package store

import "context"

// Shared is a store that several servers use at once, none of them the leader.
// Whatever one keeps in memory may be out of date by the next call.
type Shared interface {
	Store
	// Listen gives the words that any server told, this one too, until ctx ends.
	// It calls missed at first, and whenever words may have been lost.
	Listen(ctx context.Context, heard func(word string), missed func())
}

// Tell passes a word to all servers over the store once the transaction has
// committed, and not if it fails. A store of one server has nobody to tell.
func Tell(tx Tx, word string) {
	if shared, ok := tx.(interface{ Tell(word string) }); ok {
		shared.Tell(word)
	}
}

// Ref names a record.
type Ref struct {
	Bucket Bucket
	Key    []byte
}

// Ahead says through how many records the next range will go, so that a store that
// is far away can fetch them in one go. It changes nothing but the time.
func Ahead(tx Tx, records int) {
	if far, ok := tx.(interface{ Ahead(records int) }); ok {
		far.Ahead(records)
	}
}

// Group names all records of a bucket whose keys have a prefix.
type Group struct {
	Bucket Bucket
	Prefix []byte
}

// Glance reads one consistent state, of which all is named beforehand: a store
// that is far away then has it in one exchange, where a view needs several. Whatever else
// read asks for is an error, at such a store.
func Glance(s Store, refs []Ref, groups []Group, read func(Tx) error) error {
	if far, ok := s.(interface {
		Glance(refs []Ref, groups []Group, read func(Tx) error) error
	}); ok {
		return far.Glance(refs, groups, read)
	}
	return s.View(read)
}

// Prefetch says which records the transaction is about to get, so that a store
// that is far away can fetch them in one go. It changes nothing but the time.
func Prefetch(tx Tx, refs ...Ref) {
	if far, ok := tx.(interface{ Prefetch(refs []Ref) }); ok {
		far.Prefetch(refs)
	}
}
