package ledger

import (
	"crypto/sha256"
	"fmt"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// indexHash is how much of a SHA-256 an index key has: enough that no two of a
// company's enrollments or keys ever meet, at half the space.
const indexHash = 16

// EnrollmentKey is where the index has an enrollment of a device.
func EnrollmentKey(device, enrollment string) []byte {
	sum := sha256.Sum256([]byte(enrollment))
	return append([]byte(device), sum[:indexHash]...)
}

// PublicKeyKey is where the index has a public key.
func PublicKeyKey(spki []byte) []byte {
	sum := sha256.Sum256(spki)
	return sum[:indexHash]
}

// RequestOf reads the record of a serial number; nil if there is none.
func RequestOf(tx store.Tx, serial ca.Serial) (*store.Request, error) {
	data := tx.Get(store.Certificates, serial[:])
	if data == nil {
		return nil, nil
	}
	return store.DecodeRequest(data)
}

// enrolled finds the record of an enrollment; nil if there is none.
func Enrolled(tx store.Tx, device, enrollment string) (ca.Serial, *store.Request, error) {
	return indexed(tx, store.Enrollments, EnrollmentKey(device, enrollment))
}

// HolderOf finds the record of a public key; nil if there is none.
func HolderOf(tx store.Tx, spki []byte) (ca.Serial, *store.Request, error) {
	return indexed(tx, store.Keys, PublicKeyKey(spki))
}

func indexed(tx store.Tx, bucket store.Bucket, key []byte) (ca.Serial, *store.Request, error) {
	var serial ca.Serial
	raw := tx.Get(bucket, key)
	if raw == nil {
		return serial, nil, nil
	}
	if copy(serial[:], raw) != ca.SerialSize {
		return serial, nil, fmt.Errorf("index %s is damaged", bucket)
	}
	request, err := RequestOf(tx, serial)
	if err == nil && request == nil {
		err = fmt.Errorf("index %s points nowhere", bucket)
	}
	return serial, request, err
}
