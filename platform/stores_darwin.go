//go:build cgo

package platform

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"smime-agent/platform/internal/security"
)

// stores gives the login keychain, where Mail and Outlook look, then the NSS
// databases of Thunderbird's profiles, and the files last. The system asks the person nothing on our behalf: a question that comes
// out of nowhere teaches people to type their password into any dialog.
func stores(_ context.Context, o StoreOptions) ([]Store, error) {
	home, err := homeOf(o)
	if err != nil {
		return nil, err
	}
	profiles, failed := profileStores(home, o.PIN)
	others := append(profiles, newFileStore(home))
	if err := security.AllowQuestions(false); err != nil {
		return others, errors.Join(fmt.Errorf("store %s: keep the system from asking: %w", keychainName, err), failed)
	}
	if err := checkUnlocked(o.Home); err != nil {
		return others, errors.Join(fmt.Errorf("store %s: %w", keychainName, keychainSentinel(err)), failed)
	}
	open := func() (keychain, error) {
		k, err := openKeychain(o.Home)
		if err != nil {
			return nil, err
		}
		return realKeychain{k}, nil
	}
	return append([]Store{&keychainStore{open: open, programs: trustedPrograms()}}, others...), failed
}

// trustedPrograms may use new keys; those that are not installed are left out by
// the system. It asks once for each nevertheless, since a key also belongs to
// the team that made it (securityd, acls.cpp, validatePartition).
func trustedPrograms() []string {
	return []string{"/System/Applications/Mail.app", "/Applications/Microsoft Outlook.app"}
}

// openKeychain opens the user's default keychain, or the login keychain of
// another home folder.
func openKeychain(home string) (*security.Keychain, error) {
	if home != "" {
		return security.Open(filepath.Join(home, "Library", "Keychains", "login.keychain-db"))
	}
	return security.Default()
}

func checkUnlocked(home string) error {
	k, err := openKeychain(home)
	if err != nil {
		return err
	}
	unlocked, err := k.Unlocked()
	if err == nil && !unlocked {
		err = fmt.Errorf("%w: the keychain is locked", ErrLocked)
	}
	return errors.Join(err, k.Close())
}

// realKeychain gives references as the interface that the store knows.
type realKeychain struct{ *security.Keychain }

func (k realKeychain) Make(s security.Spec) (keychainRef, error) {
	ref, err := k.Keychain.Make(s)
	if err != nil {
		return nil, err
	}
	return ref, nil
}

func (k realKeychain) Take(item security.Item) (keychainRef, error) {
	ref, err := k.Keychain.Take(item)
	if err != nil {
		return nil, err
	}
	return ref, nil
}
