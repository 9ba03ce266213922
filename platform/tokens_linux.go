//go:build cgo

package platform

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"smime-agent/platform/internal/pkcs11"
)

// moduleStores opens the tokens that policy names.
func moduleStores(ctx context.Context, o StoreOptions) ([]Store, error) {
	var list []Store
	var failed []error
	for _, m := range o.Modules {
		s, err := moduleStore(ctx, m, o.PIN)
		if err != nil {
			failed = append(failed, fmt.Errorf("open PKCS #11 module %s: %w", m.Path, err))
			continue
		}
		list = append(list, s)
	}
	return list, errors.Join(failed...)
}

func moduleStore(ctx context.Context, m Module, ask PINFunc) (Store, error) {
	if !filepath.IsAbs(m.Path) {
		return nil, fmt.Errorf("%w: the path is not absolute", ErrDenied)
	}
	// A library runs with this user's rights; nobody but root and he himself may
	// have put it there.
	path, err := trusted(m.Path)
	if err != nil {
		return nil, err
	}
	module, err := pkcs11.Load(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	s := &tokenStore{place: pkcs11.Place{Module: module, Label: m.TokenLabel}, pin: newPINKeeper(ask)}
	err = s.place.Use(ctx, false, func(ss *pkcs11.Session) error {
		s.info = StoreInfo{
			Name:       "pkcs11:" + ss.Token.Label,
			Protection: tokenProtection(ss.Token),
			Algorithms: tokenAlgorithms(ss),
		}
		return nil
	})
	if pkcs11.ClassOf(err) == pkcs11.Absent {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, sentinel(err)
	}
	return s, nil
}

// tokenProtection believes the slot that it is hardware, which is all that
// PKCS #11 can say; the administrator who names the module vouches for it.
// SoftHSM truthfully does not claim it. A software TPM behind tpm2-pkcs11 looks
// like a real one. CKA_NEVER_EXTRACTABLE is no proof: SoftHSM and NSS set it
// too, and the files of both can be copied, by who knows the PIN to some use.
func tokenProtection(t pkcs11.Token) Protection {
	if t.Hardware() {
		return Hardware
	}
	return Software
}

// tokenAlgorithms asks the token which kinds of keys it makes.
func tokenAlgorithms(ss *pkcs11.Session) []KeyAlgorithm {
	return slices.DeleteFunc(allAlgorithms(), func(a KeyAlgorithm) bool { return !ss.Generates(sizes[a]) })
}

// nssStores finds the NSS databases of the user: the shared one, and those of
// Thunderbird. Thunderbird's libraries are loaded before the system's: both
// have the same names, the loader keeps the first of a name for whoever asks
// later, and only the newer serve both. So a Thunderbird that is installed
// while this process runs may be usable only after the process's next start;
// until then its profiles are in the error.
func nssStores(home string, ask PINFunc) ([]Store, error) {
	used, unused, err := thunderbirdStores(home, true, ask)
	failed := []error{err}
	module, err := loadSoftoken(systemSoftokens(), false)
	dir := filepath.Join(home, ".pki", "nssdb")
	list := used
	switch {
	case err == nil:
		list = append(list, newNSSStore("nss:default", module, dir, []string{"Chromium"}, ask))
	case nssDatabase{dir: dir}.exists():
		failed = append(failed, fmt.Errorf("open store nss:default: %w", err))
	}
	return append(list, unused...), errors.Join(failed...)
}
