package ca

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"sync/atomic"
	"time"
)

// SerialSize is the length of a serial number in octets, within the 20 of RFC
// 5280, 4.1.2.2.
const SerialSize = 18

// Serial is a certificate's number: 48 bits of milliseconds, a 32-bit counter
// and 64 random bits. Numbers grow with time, so that a store appends them; the
// random bits are those that BR 7.1 asks for.
type Serial [SerialSize]byte

// ErrSerial: the text is no serial number of this server.
var ErrSerial = errors.New("not a serial number of this server")

// Serials makes serial numbers. It may be used by many at once; the zero value
// is ready.
type Serials struct {
	counter atomic.Uint32
}

// Next makes a serial number for now. The first octet lies between 0x40 and
// 0x7f, so that the number is positive and its hex form has no leading zero.
func (s *Serials) Next(now time.Time) Serial {
	var out Serial
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(now.UnixMilli(), 0)))
	copy(out[:6], ms[2:])
	out[0] = out[0]&0x3f | 0x40
	binary.BigEndian.PutUint32(out[6:10], s.counter.Add(1))
	_, _ = rand.Read(out[10:]) // never fails: it ends the program instead
	return out
}

// Made is when the number was made, in milliseconds.
func (s Serial) Made() time.Time {
	var ms [8]byte
	copy(ms[2:], s[:6])
	ms[2] &= 0x3f
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))) //nolint:gosec // 46 bits
}

// Int gives the number.
func (s Serial) Int() *big.Int { return new(big.Int).SetBytes(s[:]) }

// String gives lower-case hex.
func (s Serial) String() string { return hex.EncodeToString(s[:]) }

// ParseSerial reads hex as people paste it: any case, with or without colons.
func ParseSerial(text string) (Serial, error) {
	var out Serial
	text = strings.ReplaceAll(strings.TrimSpace(text), ":", "")
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != SerialSize {
		return out, ErrSerial
	}
	copy(out[:], raw)
	return out, nil
}
