//go:build cgo

package platform

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"smime-agent/platform/internal/security"
)

// addressBooks gives the login keychain and the NSS databases of Thunderbird.
// Nobody is asked anything: adding a certificate wants no question but where the
// keychain is locked.
func addressBooks(_ context.Context, o StoreOptions) ([]AddressBook, error) {
	home, err := homeOf(o)
	if err != nil {
		return nil, err
	}
	books, failed := profileBooks(home, o.PIN)
	if err := security.AllowQuestions(false); err != nil {
		return books, errors.Join(fmt.Errorf("store %s: keep the system from asking: %w", keychainName, err), failed)
	}
	if err := checkUnlocked(o.Home); err != nil {
		return books, errors.Join(fmt.Errorf("store %s: %w", keychainName, keychainSentinel(err)), failed)
	}
	open := func() (keychain, error) {
		k, err := openKeychain(o.Home)
		if err != nil {
			return nil, err
		}
		return realKeychain{k}, nil
	}
	list := filepath.Join(home, "Library", "Application Support", "smime-agent", "partners.json")
	return append([]AddressBook{&keychainAddressBook{open: open, list: list}}, books...), failed
}
