package outlook

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed says that a value is not laid out as Outlook does.
var ErrMalformed = errors.New("not a security profile")

// Bitness is that of Outlook, on which the layout of the value depends.
type Bitness int

// The two of them.
const (
	X86 Bitness = 32
	X64 Bitness = 64
)

// entrySize is how long one row of the table is: size and offset of a block.
func (b Bitness) entrySize() int { return 2 * int(b) / 8 }

// countSize is how long the number of rows is, and alignment the unit to which
// the known writer fills the value up.
const (
	countSize = 4
	alignment = 16
)

// maxValue bounds a value in octets, and maxEntries its entries; a real one has
// some hundred octets, and one or two entries.
const (
	maxValue   = 1 << 20
	maxEntries = 100
)

// Profile is the value of PR_SECURITY_PROFILES: named security settings, one of
// which is the default.
type Profile []Block

// Parse reads a value. What it does not understand of a block it keeps.
func Parse(value []byte, b Bitness) (Profile, error) {
	if len(value) < countSize || len(value) > maxValue {
		return nil, fmt.Errorf("%w: %d octets", ErrMalformed, len(value))
	}
	count := uint64(binary.LittleEndian.Uint32(value))
	table := countSize + count*uint64(b.entrySize())
	if table > uint64(len(value)) || count > maxEntries {
		return nil, fmt.Errorf("%w: %d entries in %d octets", ErrMalformed, count, len(value))
	}
	var p Profile
	end := table
	for i := range count {
		size, offset := b.row(value[countSize+i*uint64(b.entrySize()):])
		if offset < table || offset > uint64(len(value)) || size > uint64(len(value))-offset {
			return nil, fmt.Errorf("%w: entry %d lies outside of the value", ErrMalformed, i+1)
		}
		block, err := parseBlock(value[offset : offset+size])
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		p = append(p, block)
		end = max(end, offset+size)
	}
	for _, octet := range value[end:] {
		if octet != 0 {
			return nil, fmt.Errorf("%w: octets behind the last entry", ErrMalformed)
		}
	}
	return p, nil
}

// row reads size and offset. The upper halves of the 64-bit numbers are not
// defined; the known reader does not look at them either.
func (b Bitness) row(in []byte) (size, offset uint64) {
	second := b.entrySize() / 2
	return uint64(binary.LittleEndian.Uint32(in)), uint64(binary.LittleEndian.Uint32(in[second:]))
}

// Marshal writes a value as the known writer does: the blocks one behind the
// other, then 1 to 16 zero octets up to a multiple of 16.
func (p Profile) Marshal(b Bitness) ([]byte, error) {
	value := binary.LittleEndian.AppendUint32(nil, uint32(len(p))) //nolint:gosec // bounded by maxValue below
	offset := countSize + len(p)*b.entrySize()
	for _, block := range p {
		value = b.appendNumber(value, len(block.raw))
		value = b.appendNumber(value, offset)
		offset += len(block.raw)
	}
	for _, block := range p {
		value = append(value, block.raw...)
	}
	if len(value) > maxValue {
		return nil, fmt.Errorf("%w: %d octets", ErrMalformed, len(value))
	}
	return append(value, make([]byte, alignment-len(value)%alignment)...), nil
}

func (b Bitness) appendNumber(to []byte, n int) []byte {
	if b == X86 {
		return binary.LittleEndian.AppendUint32(to, uint32(n)) //nolint:gosec // bounded by maxValue
	}
	return binary.LittleEndian.AppendUint64(to, uint64(n)) //nolint:gosec // as above
}

// Named finds the settings of that name.
func (p Profile) Named(name string) (Block, bool) {
	for _, b := range p {
		if b.Name() == name {
			return b, true
		}
	}
	return Block{}, false
}

// Default finds the settings that Outlook uses: those that are marked so, else
// the only ones.
func (p Profile) Default() (Block, bool) {
	for _, b := range p {
		if b.Defaults()&DefaultForFormat != 0 {
			return b, true
		}
	}
	if len(p) == 1 {
		return p[0], true
	}
	return Block{}, false
}

// With gives the profile with ours in front as the default, in place of the one of
// the same name. The others are kept and lose their marks as the default.
func (p Profile) With(ours Block) (Profile, error) {
	next := Profile{ours}
	for _, b := range p {
		if b.Name() == ours.Name() {
			continue
		}
		demoted, err := b.withDefaults(b.Defaults() &^ (DefaultForFormat | GlobalDefault))
		if err != nil {
			return nil, err
		}
		next = append(next, demoted)
	}
	return next, nil
}
