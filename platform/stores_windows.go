package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"smime-agent/platform/internal/wincrypt"
)

// stores gives the TPM's keys where there is a usable TPM, then the keys that
// Windows keeps in software, then the NSS databases of Thunderbird's profiles,
// and the files last. Both of the first file their certificates in the user's
// own certificate store; they are two stores, not one with a fallback, so that
// each can say truthfully how it protects keys.
func stores(_ context.Context, o StoreOptions) ([]Store, error) {
	home := o.Home
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("find home folder: %w", err)
		}
	}
	var list []Store
	var failed []error
	if s, ok := tpmStore(); ok {
		list = append(list, s)
	}
	s, err := softwareStore()
	if err != nil {
		failed = append(failed, err)
	} else {
		list = append(list, s)
	}
	profiles, err := profileStores(o.Home, o.PIN)
	list = append(list, profiles...)
	failed = append(failed, err)
	if len(o.Modules) > 0 {
		failed = append(failed, fmt.Errorf("PKCS #11 modules: %w on Windows", ErrUnsupported))
	}
	return append(list, newFileStore(home)), errors.Join(failed...)
}

// The stores' names. Policy may name them, or both by "windows*".
const (
	windowsStoreName = "windows"
	tpmStoreName     = "windows:tpm"
)

// tpmStore is false where there is no TPM 2.0 that keeps keys. Windows does not
// tell a machine without from one whose TPM is off or not ready, and the first
// are many, so that is no error. TPM 1.2 signs with SHA-1 only.
func tpmStore() (Store, bool) {
	p := cngProvider{wincrypt.PlatformProvider}
	algorithms, err := p.algorithms()
	if err != nil || len(algorithms) == 0 || !p.isTPM2() {
		return nil, false
	}
	return &windowsStore{
		providers: []windowsProvider{p},
		info: StoreInfo{Name: tpmStoreName, Protection: Hardware,
			Algorithms: algorithms, Consumers: windowsConsumers()},
	}, true
}

// softwareStore makes keys by CNG, or by the older CryptoAPI where CNG keeps
// none, as under Wine. What either made is found again.
func softwareStore() (Store, error) {
	s := &windowsStore{info: StoreInfo{Name: windowsStoreName, Protection: NonExportable, Consumers: windowsConsumers()}}
	var failed []error
	for _, p := range []interface {
		windowsProvider
		algorithms() ([]KeyAlgorithm, error)
	}{cngProvider{wincrypt.SoftwareProvider}, capiProvider{}} {
		algorithms, err := p.algorithms()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.providers = append(s.providers, p)
		s.info.Algorithms = merge(s.info.Algorithms, algorithms)
	}
	if len(s.providers) == 0 {
		return nil, fmt.Errorf("open store %s: %w", windowsStoreName, errors.Join(failed...))
	}
	return s, nil
}

// windowsConsumers are the mail programs that look in the user's store.
// Thunderbird does not.
func windowsConsumers() []string { return []string{"Outlook"} }

// merge keeps the order of [allAlgorithms].
func merge(a, b []KeyAlgorithm) []KeyAlgorithm {
	var out []KeyAlgorithm
	for _, kind := range allAlgorithms() {
		if slices.Contains(a, kind) || slices.Contains(b, kind) {
			out = append(out, kind)
		}
	}
	return out
}
