package outlook

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// ErrNone says that there is no such key or value.
var ErrNone = errors.New("not in the registry")

// Hive is a root of the registry.
type Hive string

// The hives, as people write them.
const (
	CurrentUser  Hive = "HKCU"
	LocalMachine Hive = "HKLM"
)

// Kind is the type of a value (winnt.h).
type Kind uint32

// The kinds of values that are written here.
const (
	Text   Kind = 1 // REG_SZ
	Binary Kind = 3 // REG_BINARY
	DWord  Kind = 4 // REG_DWORD
)

// Value is a value as it stands in the registry.
type Value struct {
	Kind Kind
	Data []byte
}

// Registry is the registry. Keys are written with backslashes, without the hive.
// What is not there is [ErrNone].
type Registry interface {
	// Keys lists the subkeys of a key.
	Keys(h Hive, key string) ([]string, error)
	Value(h Hive, key, name string) (Value, error)
	// Set writes a value of the current user, and its key if need be; Unset takes
	// one away, or with an empty name a key that is empty. nil if it is not there.
	Set(key, name string, v Value) error
	Unset(key, name string) error
}

// text reads REG_SZ, and REG_BINARY with the same octets, as Outlook 2010 had it.
func (v Value) text() string {
	if v.Kind != Text && v.Kind != Binary {
		return ""
	}
	units := make([]uint16, 0, len(v.Data)/2)
	for i := 0; i+1 < len(v.Data); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(v.Data[i:]))
	}
	return string(bytes.TrimRight([]byte(string(utf16.Decode(units))), "\x00"))
}

func (v Value) number() (uint32, bool) {
	if (v.Kind != DWord && v.Kind != Binary) || len(v.Data) != 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(v.Data), true
}

// textOf and numberOf, the latter of the current user, are empty and false for
// what is not there.
func textOf(r Registry, h Hive, key, name string) (string, error) {
	v, err := r.Value(h, key, name)
	if errors.Is(err, ErrNone) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s\\%s: %w", key, name, err)
	}
	return v.text(), nil
}

func numberOf(r Registry, key, name string) (uint32, bool, error) {
	v, err := r.Value(CurrentUser, key, name)
	if errors.Is(err, ErrNone) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read %s\\%s: %w", key, name, err)
	}
	n, ok := v.number()
	return n, ok, nil
}
