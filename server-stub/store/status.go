package store

import (
	"encoding/binary"
	"time"
)

// stampSize is how many octets of milliseconds stand before a stamped record.
const stampSize = 8

// Stamp gives the stored form of a message with the time that belongs to it.
func Stamp(message []byte, at time.Time) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 0, stampSize+len(message)), uint64(max(at.UnixMilli(), 0)))
	return append(out, message...)
}

// Stamped takes the two apart; ok is false for what is no stamped record.
func Stamped(data []byte) (message []byte, at time.Time, ok bool) {
	if len(data) < stampSize {
		return nil, time.Time{}, false
	}
	return data[stampSize:], time.UnixMilli(int64(binary.BigEndian.Uint64(data))).UTC(), true
}

// EachJSON goes through a bucket of JSON records, from a key on, until visit says false.
func EachJSON[T any](tx Tx, bucket Bucket, from []byte, visit func(key []byte, record T) bool) error {
	var failed error
	tx.Range(bucket, nil, from, func(key, _ []byte) bool {
		var record T
		if _, err := GetJSON(tx, bucket, key, &record); err != nil {
			failed = err
			return false
		}
		return visit(key, record)
	})
	return failed
}
