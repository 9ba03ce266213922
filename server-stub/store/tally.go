package store

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Tally is what two stores are compared by.
type Tally struct {
	Records int
	Bytes   int64
	// Digest is a SHA-256 over all buckets, keys and values in order.
	Digest [sha256.Size]byte
}

// TallyOf reads everything in one transaction.
func TallyOf(tx Tx) Tally {
	var t Tally
	h := sha256.New()
	for _, bucket := range Buckets() {
		addPiece(h, []byte(bucket))
		tx.Range(bucket, nil, nil, func(key, value []byte) bool {
			addPiece(h, key)
			addPiece(h, value)
			t.Records++
			t.Bytes += int64(len(key) + len(value))
			return true
		})
	}
	h.Sum(t.Digest[:0])
	return t
}

// addPiece puts the length before each piece, so that no two contents look alike.
func addPiece(h hash.Hash, piece []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(piece))))
	h.Write(piece)
}
