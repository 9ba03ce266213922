//go:build cgo || windows

package platform

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"smime-agent/platform/internal/pkcs11"
)

// nssStore is a token store whose programs believe the anchors that it is told
// to trust.
type nssStore struct{ *tokenStore }

// Trust implements [Truster].
func (s nssStore) Trust(ctx context.Context, anchor *x509.Certificate) error {
	return s.use(ctx, access{write: true, fresh: true}, "trust anchor", func(ss *pkcs11.Session) error {
		spec := pkcs11.CertificateSpec{Label: issuerLabel(anchor), ID: anchor.SubjectKeyId}
		if err := ss.PutCertificate(anchor, spec); err != nil {
			return err
		}
		return ss.TrustForEmail(anchor)
	})
}

func newNSSStore(name string, module *pkcs11.Module, dir string, consumers []string, ask PINFunc) Store {
	database := nssDatabase{dir: dir}
	return nssStore{&tokenStore{
		info: StoreInfo{
			Name:       name,
			Protection: Software, // PKCS #12 export works, whatever CKA_EXTRACTABLE says
			Algorithms: allAlgorithms(),
			Consumers:  consumers,
		},
		place: pkcs11.Place{Module: module, Init: database.init(), Label: nssTokenLabel, Files: database.files()},
		nss:   &database,
		pin:   newPINKeeper(ask),
	}}
}

// thunderbirdStores gives the profiles with mail accounts apart from the others:
// those are the stores of a mail program that is in use, which come first. ahead
// loads the libraries of an installation without a profile too.
func thunderbirdStores(home string, ahead bool, ask PINFunc) (used, unused []Store, err error) {
	installed := thunderbirds(home)
	profiles, err := findThunderbirdProfiles(installed)
	failed := []error{err}
	type loaded struct {
		module *pkcs11.Module
		err    error
	}
	modules := map[string]loaded{}
	for _, t := range installed {
		first := slices.IndexFunc(profiles, func(p thunderbirdProfile) bool { return p.of.profiles == t.profiles })
		if first < 0 && !ahead {
			continue
		}
		softokens := t.softokens()
		if first >= 0 {
			softokens = lastRunFirst(softokens, profiles[first].dir)
		}
		module, err := loadSoftoken(softokens, true)
		modules[t.profiles] = loaded{module, err}
	}
	for _, p := range profiles {
		m := modules[p.of.profiles]
		if m.err != nil {
			failed = append(failed, fmt.Errorf("open store %s: %w", p.store, m.err))
			continue
		}
		s := newNSSStore(p.store, m.module, p.dir, []string{"Thunderbird"}, ask)
		if prefs, err := readPrefs(p.dir); err == nil && len(prefs.identities()) > 0 {
			used = append(used, s)
		} else {
			unused = append(unused, s)
		}
	}
	return used, unused, errors.Join(failed...)
}

// loadSoftoken loads the first that can be loaded.
func loadSoftoken(paths []string, ownSiblings bool) (*pkcs11.Module, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("NSS's softoken is not installed: %w", ErrNotFound)
	}
	var failed []error
	for _, path := range paths {
		var siblings []string
		if ownSiblings {
			siblings = siblingsOf(path)
		}
		module, err := pkcs11.Load(path, siblings...)
		if err == nil {
			return module, nil
		}
		if errors.Is(err, pkcs11.ErrMachine) {
			err = fmt.Errorf("%w: install the Thunderbird for the kind of processor for which this agent was built: %w", ErrUnsupported, err)
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}
