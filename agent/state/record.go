package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// recordMagic begins every value that the agent writes, so that a record can
// be found in a file whose tree is gone.
var recordMagic = [8]byte{0x8d, 'S', 'M', 'R', 'E', 'C', '1', '\n'}

// A record is laid out as magic, length of the body (4 bytes, big endian), the
// first 8 bytes of the body's SHA-256, body. The body is the generation (8
// bytes), the bucket's name (length in 1 byte), the key (length in 2 bytes)
// and the JSON. Bucket and key are in it so that a good record in a wrong
// place is noticed, and so that it can be put back without the tree.
const recordHeader = 8 + 4 + 8

// maxRecord bounds one record. A policy is the largest of them.
const maxRecord = 8 << 20

// record is one value with what is needed to judge it.
type record struct {
	bucket, key string
	// generation is the number of the transaction that wrote it.
	generation uint64
	// sum is the first 8 bytes of the SHA-256 of all of the above.
	sum  uint64
	json []byte
}

var errBadRecord = errors.New("record does not match its checksum")

func seal(r record) ([]byte, error) {
	body := binary.BigEndian.AppendUint64(nil, r.generation)
	body = append(body, byte(len(r.bucket)))
	body = append(body, r.bucket...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(r.key)))
	body = append(body, r.key...)
	body = append(body, r.json...)
	if len(r.bucket) > 255 || len(r.key) > 1024 || len(body) > maxRecord {
		return nil, fmt.Errorf("record %s/%.40s of %d bytes is too large", r.bucket, r.key, len(body))
	}
	sum := sha256.Sum256(body)
	out := append(make([]byte, 0, recordHeader+len(body)), recordMagic[:]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	out = append(out, sum[:8]...)
	return append(out, body...), nil
}

// unseal reads the record at the beginning of raw, which may go on behind it,
// and tells how long it is.
func unseal(raw []byte) (record, int, error) {
	if len(raw) < recordHeader || !bytes.Equal(raw[:8], recordMagic[:]) {
		return record{}, 0, errBadRecord
	}
	n := int(binary.BigEndian.Uint32(raw[8:12]))
	if n < 11 || n > maxRecord || n > len(raw)-recordHeader {
		return record{}, 0, errBadRecord
	}
	body := raw[recordHeader : recordHeader+n]
	sum := sha256.Sum256(body)
	if !bytes.Equal(sum[:8], raw[12:20]) {
		return record{}, 0, errBadRecord
	}
	r := record{generation: binary.BigEndian.Uint64(body), sum: binary.BigEndian.Uint64(sum[:8])}
	var ok1, ok2 bool
	r.bucket, body, ok1 = cut(body[9:], int(body[8]))
	if ok1 && len(body) >= 2 {
		r.key, body, ok2 = cut(body[2:], int(binary.BigEndian.Uint16(body)))
	}
	if !ok1 || !ok2 {
		return record{}, 0, errBadRecord
	}
	r.json = bytes.Clone(body)
	return r, recordHeader + n, nil
}

func cut(b []byte, n int) (string, []byte, bool) {
	if n > len(b) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

// unsealExactly reads a value that must be one record of that place.
func unsealExactly(bucket, key string, raw []byte) (record, error) {
	r, n, err := unseal(raw)
	if err == nil && (n != len(raw) || r.bucket != bucket || r.key != key) {
		err = fmt.Errorf("%w: it is %s/%s", errBadRecord, r.bucket, r.key)
	}
	if err != nil {
		return record{}, fmt.Errorf("read %s/%s: %w", bucket, key, err)
	}
	return r, nil
}

// carve finds every whole record in raw, wherever it lies, and keeps the
// newest of each place. Records that were deleted or replaced may still lie in
// free pages: what was deleted can come back, and what was replaced does where
// the newest copy is the damaged one.
func carve(raw []byte) map[[2]string]record {
	found := make(map[[2]string]record)
	for {
		i := bytes.Index(raw, recordMagic[:])
		if i < 0 {
			return found
		}
		raw = raw[i:]
		r, n, err := unseal(raw)
		if err != nil {
			raw = raw[1:]
			continue
		}
		raw = raw[n:]
		place := [2]string{r.bucket, r.key}
		if old, ok := found[place]; !ok || r.generation > old.generation {
			found[place] = r
		}
	}
}
