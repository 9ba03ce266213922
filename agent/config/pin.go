package config

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Pin is the SHA-256 of a SubjectPublicKeyInfo (DER), written
// "sha256/BASE64" as HTTP public key pins were (RFC 7469 §2.1.1).
type Pin [sha256.Size]byte

const pinPrefix = "sha256/"

// String writes the pin as the setting has it.
func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

// MarshalText writes the pin as [Pin.String] does.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// parsePin is strict: a pin has one spelling.
func parsePin(s string) (Pin, bool) {
	text, ok := strings.CutPrefix(s, pinPrefix)
	if !ok || len(text) != base64.StdEncoding.EncodedLen(sha256.Size) {
		return Pin{}, false
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(sum) != sha256.Size {
		return Pin{}, false
	}
	return Pin(sum), true
}

// maxPins is more than any rollover of keys needs.
const maxPins = 16

// putPins refuses the whole list for one bad pin: a list without the pin that
// was meant could lock the machine out without a word.
func putPins(s *Settings, e Entry) *fault {
	items := e.Items
	if items == nil {
		items = strings.Split(e.Text, ",")
	}
	if len(items) > maxPins {
		return faultf("Leave only the keys that are in use.", "There are %d pins, more than %d.", len(items), maxPins)
	}
	var pins []Pin
	for _, item := range items {
		pin, ok := parsePin(strings.TrimSpace(item))
		if !ok {
			return faultf("Write sha256/ and the Base64 of the key's SHA-256, 44 letters.", "The pin %q is not one.", item)
		}
		pins = append(pins, pin)
	}
	if len(pins) == 0 {
		return faultf("Write a pin, or take the setting out.", "The list is empty.")
	}
	s.ServerPins = pins
	return nil
}
