//go:build cgo || windows

package platform

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/platform/internal/pkcs11"
)

// sizes says how the kinds of keys are asked of a token.
var sizes = map[KeyAlgorithm]pkcs11.KeySpec{
	RSA2048: {Bits: 2048},
	RSA3072: {Bits: 3072},
	RSA4096: {Bits: 4096},
	P256:    {Curve: elliptic.P256()},
	P384:    {Curve: elliptic.P384()},
}

// Create makes a key. [ErrUnsupported] if it shall decrypt and the token makes
// only signing keys of that kind. The key can always sign, whatever spec says: the request for
// its certificate must be signed by it. The certificate says what it is for.
func (s *tokenStore) Create(ctx context.Context, id KeyID, spec KeySpec) (Key, error) {
	wanted, ok := sizes[spec.Algorithm]
	if !ok || !slices.Contains(s.info.Algorithms, spec.Algorithm) {
		return nil, fmt.Errorf("create key %s in store %s: %w: no keys of kind %q", id, s.info.Name, ErrUnsupported, spec.Algorithm)
	}
	if id == "" {
		return nil, fmt.Errorf("create key in store %s: the ID is empty", s.info.Name)
	}
	wanted.Label, wanted.Decrypt, wanted.NSS = string(id), spec.Decrypt, s.nss != nil
	var public crypto.PublicKey
	err := s.use(ctx, access{write: true, fresh: true, private: true}, "create key "+string(id), func(ss *pkcs11.Session) error {
		if err := makeRoom(ss, id); err != nil {
			return err
		}
		if spec.Decrypt && !ss.Decrypts(wanted) {
			return fmt.Errorf("%w: keys of kind %q cannot decrypt here", ErrUnsupported, spec.Algorithm)
		}
		if err := ss.Generate(wanted); err != nil {
			return err
		}
		pairs, err := findKey(ss, string(id))
		if err != nil {
			return err
		}
		made, ok := best(pairs)
		if !ok {
			return errors.New("the key is not there after it was made")
		}
		public = made.key
		return mend(ss, made)
	})
	if err != nil {
		return nil, err
	}
	return s.key(id, public), nil
}

// makeRoom gives ErrExists if a usable key bears the ID, after mending it, and
// clears away everything else under that ID.
func makeRoom(ss *pkcs11.Session, id KeyID) error {
	pairs, err := findKey(ss, string(id))
	if err != nil {
		return err
	}
	chosen, ok := best(pairs)
	err = clearPairs(ss, pairs, func(p pair) bool { return ok && p.private != nil && p.private.Object == chosen.private.Object })
	if err != nil {
		return fmt.Errorf("clear broken key away: %w", err)
	}
	if !ok {
		return nil
	}
	if err := mend(ss, chosen); err != nil {
		return fmt.Errorf("mend key: %w", err)
	}
	return ErrExists
}

func (s *tokenStore) Open(ctx context.Context, id KeyID) (Key, error) {
	var public crypto.PublicKey
	err := s.use(ctx, access{private: true}, "open key "+string(id), func(ss *pkcs11.Session) error {
		p, err := findBest(ss, id)
		public = p.key
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.key(id, public), nil
}

func findBest(ss *pkcs11.Session, id KeyID) (pair, error) {
	pairs, err := findKey(ss, string(id))
	if err != nil {
		return pair{}, err
	}
	p, ok := best(pairs)
	if !ok {
		return pair{}, ErrNotFound
	}
	return p, nil
}

func (s *tokenStore) Delete(ctx context.Context, id KeyID) error {
	if id == "" {
		return nil // an empty label would mean every key
	}
	err := s.use(ctx, access{write: true, private: true}, "delete key "+string(id), func(ss *pkcs11.Session) error {
		pairs, _, err := findPairs(ss, string(id))
		if err != nil {
			return err
		}
		if slices.ContainsFunc(pairs, func(p pair) bool { return p.certified }) {
			return fmt.Errorf("a certificate is tied to the key: %w", ErrDenied)
		}
		return clearPairs(ss, pairs, func(pair) bool { return false })
	})
	if errors.Is(err, errNoDatabase) {
		return nil
	}
	return err
}

// Keys lists our keys. It asks nobody for a PIN: while the token is locked it
// goes by the public objects, which tell nothing of half keys.
func (s *tokenStore) Keys(ctx context.Context) ([]KeyInfo, error) {
	var pairs []pair
	locked := false
	a := access{private: s.pin.remembers(ctx)}
	err := s.use(ctx, a, "list keys", func(ss *pkcs11.Session) error {
		found, _, err := findPairs(ss, "")
		pairs, locked = found, !a.private && ss.Token.LoginRequired()
		return err
	})
	if errors.Is(err, errNoDatabase) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return listKeys(pairs, locked), nil
}

// listKeys gives one entry for each ID, the best that is found of it.
func listKeys(pairs []pair, locked bool) []KeyInfo {
	byLabel := map[string][]pair{}
	for _, p := range pairs {
		if strings.HasPrefix(p.label, OurPrefix) {
			byLabel[p.label] = append(byLabel[p.label], p)
		}
	}
	var infos []KeyInfo
	for label, same := range byLabel {
		info := KeyInfo{ID: KeyID(label)}
		for _, p := range same {
			info.Certified = info.Certified || p.certified
			if locked {
				info.Public = p.key
			}
		}
		if p, ok := best(same); ok {
			info.Public = p.key
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b KeyInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos
}
