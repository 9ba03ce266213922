//go:build windows || (darwin && cgo)

package platform

import "errors"

// profileStores gives the NSS databases of Thunderbird's profiles, where no other
// program shares one with it: those in use first.
func profileStores(home string, ask PINFunc) ([]Store, error) {
	used, unused, err := thunderbirdStores(home, false, ask)
	return append(used, unused...), err
}

// profileBooks gives the address books of those databases. A profile whose
// Thunderbird was taken off the machine wants no certificates, and is no failure.
func profileBooks(home string, ask PINFunc) ([]AddressBook, error) {
	profiles, err := profileStores(home, ask)
	several, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the joined error itself, not what is in it
	if !ok {
		return addressBooksOf(profiles), err
	}
	var failed []error
	for _, e := range several.Unwrap() {
		if !errors.Is(e, ErrNotFound) {
			failed = append(failed, e)
		}
	}
	return addressBooksOf(profiles), errors.Join(failed...)
}
