// Package report bounds and judges what devices say of themselves.
package report

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	controlv1 "smime-agent/proto/control/v1"
)

// The bounds of one report. MaxUsers bounds lists of mailboxes too.
const (
	MaxUsers       = 64
	maxStores      = 32
	maxCredentials = 512
	maxConditions  = 128
	// MaxText bounds one text, in bytes.
	MaxText = 512
)

// Text refuses texts that are too long or not UTF-8.
func Text(texts ...string) error {
	for _, text := range texts {
		if len(text) > MaxText || !utf8.ValidString(text) {
			return fmt.Errorf("a field is longer than %d bytes", MaxText)
		}
	}
	return nil
}

// Bounded refuses a report that has too much of anything.
func Bounded(req *controlv1.SyncRequest) error {
	malformed := func(what string) error {
		return fmt.Errorf("the report has too many %s", what)
	}
	switch {
	case len(req.GetUsers()) > MaxUsers:
		return malformed("users")
	case len(req.GetCredentials()) > maxCredentials:
		return malformed("credentials")
	case len(req.GetConditions()) > maxConditions:
		return malformed("conditions")
	}
	seen := make([]string, 0, len(req.GetUsers()))
	for _, user := range req.GetUsers() {
		if len(user.GetStores()) > maxStores {
			return malformed("stores")
		}
		if user.GetUser() == "" || slices.Contains(seen, user.GetUser()) {
			return errors.New("a user is empty or there twice")
		}
		seen = append(seen, user.GetUser())
		if err := Text(user.GetUser(), user.GetAccount(), user.GetUpn(), user.GetLocale()); err != nil {
			return err
		}
	}
	return nil
}

// UnderWay says that the device has something that does not rest yet.
func UnderWay(req *controlv1.SyncRequest) bool {
	for _, c := range req.GetCredentials() {
		switch c.GetState() {
		case "active", "kept", "over":
		default:
			return true
		}
	}
	return false
}

// NextSync gives each device its own place in the interval, from its ID, so
// that a fleet that was started at once does not call at once for ever.
func NextSync(id string, now time.Time, interval time.Duration) time.Duration {
	sum := sha256.Sum256([]byte(id))
	place := time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(interval))
	into := time.Duration(now.UnixNano() % int64(interval))
	next := (place - into + interval) % interval
	if next < interval/2 {
		next += interval
	}
	return next
}
