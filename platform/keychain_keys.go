package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/platform/internal/security"
)

// keychainKinds says how the kinds of keys are asked of the keychain.
var keychainKinds = map[KeyAlgorithm]security.Spec{
	RSA2048: {Bits: 2048},
	RSA3072: {Bits: 3072},
	RSA4096: {Bits: 4096},
	P256:    {Bits: 256, EC: true},
	P384:    {Bits: 384, EC: true},
}

// Create makes a key that cannot be taken out, or fails. It can sign and
// decrypt, whatever spec says: the defaults of the system are right for S/MIME,
// and the certificate says what the key is for.
func (s *keychainStore) Create(ctx context.Context, id KeyID, spec KeySpec) (Key, error) {
	wanted, ok := keychainKinds[spec.Algorithm]
	if !ok {
		return nil, fmt.Errorf("create key %s in store %s: %w: no keys of kind %q", id, keychainName, ErrUnsupported, spec.Algorithm)
	}
	if id == "" {
		return nil, fmt.Errorf("create key in store %s: the ID is empty", keychainName)
	}
	wanted.Tag, wanted.Name, wanted.Programs = string(id), keyName(id, spec.Owner), s.programs
	var made Key
	err := s.use(ctx, "create key "+string(id), func(k keychain) error {
		if err := clearHalves(k, id); err != nil {
			return err
		}
		ref, err := k.Make(wanted)
		if err != nil {
			return err
		}
		public, err := readBack(k, id, ref)
		if err != nil {
			return errors.Join(err, ref.Close())
		}
		made, err = s.newKey(id, public, ref)
		return err
	})
	return made, err
}

// clearHalves gives ErrExists if a whole key bears the ID, and clears away what
// a crash left under it. A key with a certificate is never cleared away.
func clearHalves(k keychain, id KeyID) error {
	pairs, _, err := pairsOf(k, id)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		switch {
		case p.whole:
			return ErrExists
		case len(p.certs) > 0:
			return fmt.Errorf("a certificate is tied to what is left of a key of that name: %w", ErrDenied)
		}
	}
	return deleteAll(k, pairs)
}

func deleteAll(k keychain, pairs []keychainPair) error {
	for _, p := range pairs {
		if err := k.Delete(p.Item); err != nil && !errors.Is(err, security.ItemNotFound) {
			return fmt.Errorf("delete %s: %w", p.id, err)
		}
	}
	return nil
}

// readBack looks at a new key before anybody relies on it: that it cannot be
// taken out, since the attribute for that is silently ignored at the wrong
// place, and that it is found by its ID, since the system sets the tag last and
// ignores the result (SecKey.cpp). A key that fails is deleted again.
func readBack(k keychain, id KeyID, ref keychainRef) (keychainPair, error) {
	extractable, err := ref.Extractable()
	if err == nil && extractable {
		err = fmt.Errorf("%w: the key that was made could be taken out of the keychain", ErrDenied)
	}
	if err == nil {
		var p keychainPair
		if p, _, err = theOne(k, id); err == nil {
			return p, nil
		}
		err = fmt.Errorf("find the key that was made: %v", err) //nolint:errorlint // not there now is no news of an old key
	}
	made, _, e := pairsOf(k, id)
	if e == nil {
		e = deleteAll(k, made)
	}
	return keychainPair{}, errors.Join(err, e)
}

func (s *keychainStore) Open(ctx context.Context, id KeyID) (Key, error) {
	var key Key
	err := s.use(ctx, "open key "+string(id), func(k keychain) error {
		p, _, err := theOne(k, id)
		if err != nil {
			return err
		}
		ref, err := k.Take(p.Item)
		if err != nil {
			return err
		}
		key, err = s.newKey(id, p, ref)
		return err
	})
	return key, err
}

func (s *keychainStore) Delete(ctx context.Context, id KeyID) error {
	if id == "" {
		return nil // an empty ID would mean every key
	}
	return s.use(ctx, "delete key "+string(id), func(k keychain) error {
		pairs, _, err := pairsOf(k, id)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(pairs, func(p keychainPair) bool { return len(p.certs) > 0 }) {
			return fmt.Errorf("a certificate is tied to the key: %w", ErrDenied)
		}
		return deleteAll(k, pairs)
	})
}

// Keys gives one entry for each ID, whole keys before halves. The keychain
// keeps no time of a key's making.
func (s *keychainStore) Keys(ctx context.Context) ([]KeyInfo, error) {
	var infos []KeyInfo
	err := s.use(ctx, "list keys", func(k keychain) error {
		pairs, _, err := pairsOf(k, "")
		if err != nil {
			return err
		}
		byID := map[KeyID]KeyInfo{}
		for _, p := range pairs {
			info := byID[p.id]
			info.ID = p.id
			info.Certified = info.Certified || len(p.certs) > 0
			if p.whole {
				info.Public = p.public
			}
			byID[p.id] = info
		}
		for _, info := range byID {
			infos = append(infos, info)
		}
		slices.SortFunc(infos, func(a, b KeyInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
		return nil
	})
	return infos, err
}
