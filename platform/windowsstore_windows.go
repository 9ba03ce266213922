package platform

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"smime-agent/platform/internal/wincrypt"
)

// windowsProvider makes keys of the user in one of the ways that Windows has.
// Its errors are Windows' own or sentinels.
type windowsProvider interface {
	// make makes a key that cannot be exported, or one that open refuses.
	make(name string, spec KeySpec) error
	// open finds a key. Errors of class [wincrypt.Missing] for none or half of one.
	open(name string) (windowsHandle, error)
	names() ([]string, error)
	remove(name string) error
}

// windowsHandle is an opened key.
type windowsHandle interface {
	facts() (windowsFacts, error)
	// sign gives the signature in the form that crypto.Signer wants.
	sign(digest []byte, opts crypto.SignerOpts) ([]byte, error)
	// decrypt undoes OAEP, or PKCS #1 v1.5 if oaep is nil.
	decrypt(msg []byte, oaep *rsa.OAEPOptions) ([]byte, error)
	agree(remote []byte) ([]byte, error)
	io.Closer
}

// windowsFacts is what a key says of itself.
type windowsFacts struct {
	public crypto.PublicKey
	// sealed says that Windows refused to export the private key.
	sealed   bool
	location wincrypt.KeyLocation
}

// windowsStore keeps keys with providers, the best first, and certificates in
// the user's stores. The key's ID is its name, or that of its container.
type windowsStore struct {
	providers []windowsProvider
	info      StoreInfo
}

func (s *windowsStore) Info() StoreInfo {
	info := s.info
	info.Algorithms = slices.Clone(info.Algorithms)
	return info
}

// containerName is what a key may be called: nothing that Wine, which keeps
// containers as keys of the registry, or Windows could take for a path. 255 is
// less than CryptoAPI's MAX_PATH and CNG's 512.
var containerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,254}$`)

// located is a key where it was found.
type located struct {
	provider windowsProvider
	windowsFacts
}

// usable says that a key may serve: it is sealed, or it has a certificate. An
// exportable key that never had one is what is left of an attempt whose check
// did not come to its end, or was planted.
func (l located) usable(certified bool) bool { return l.public != nil && (l.sealed || certified) }

// locate looks for a name with every provider. Half a key has no public part.
// A provider that cannot answer stops the search only if nobody has the key.
func (s *windowsStore) locate(id KeyID) ([]located, error) {
	if !containerName.MatchString(string(id)) {
		return nil, fmt.Errorf("%w: %q cannot be the name of a key", ErrUnsupported, id)
	}
	var all []located
	var failed []error
	for _, p := range s.providers {
		facts, err := look(p, string(id))
		if err == nil {
			all = append(all, located{p, facts})
			continue
		}
		if wincrypt.ClassOf(err) != wincrypt.Missing {
			failed = append(failed, err)
			continue
		}
		names, err := p.names()
		if err != nil {
			failed = append(failed, err)
		} else if slices.Contains(names, string(id)) {
			all = append(all, located{provider: p})
		}
	}
	if len(failed) > 0 && !slices.ContainsFunc(all, func(l located) bool { return l.public != nil }) {
		return nil, errors.Join(failed...)
	}
	return all, nil
}

func look(p windowsProvider, name string) (windowsFacts, error) {
	h, err := p.open(name)
	if err != nil {
		return windowsFacts{}, err
	}
	facts, err := h.facts()
	return facts, errors.Join(err, h.Close())
}

// find gives the usable key of that name, or [ErrNotFound].
func (s *windowsStore) find(id KeyID) (located, error) {
	all, err := s.locate(id)
	if err != nil {
		return located{}, err
	}
	var mine []wincrypt.Filed
	for _, l := range all {
		if l.public != nil && !l.sealed && mine == nil {
			if mine, err = filed(wincrypt.My); err != nil {
				return located{}, err
			}
		}
		if l.usable(certifies(mine, id, l.public)) {
			return l, nil
		}
	}
	return located{}, ErrNotFound
}

func (s *windowsStore) wrap(err error, what string, id KeyID) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s in store %s: %w", what, id, s.info.Name, windowsError(err))
}

// windowsError adds the sentinel that fits. A TPM that is not ready comes back,
// as a token that is not plugged in.
func windowsError(err error) error {
	for _, e := range []error{ErrNotFound, ErrExists, ErrLocked, ErrDenied, ErrUnsupported} {
		if errors.Is(err, e) {
			return err
		}
	}
	sentinels := map[wincrypt.Class]error{
		wincrypt.Missing: ErrNotFound, wincrypt.Exists: ErrExists, wincrypt.Locked: ErrLocked,
		wincrypt.Absent: ErrLocked, wincrypt.Denied: ErrDenied, wincrypt.Unsupported: ErrUnsupported,
	}
	if e, ok := sentinels[wincrypt.ClassOf(err)]; ok {
		return fmt.Errorf("%w: %w", e, err)
	}
	return err
}

// Create makes a key with the first provider that can, and believes none: the
// key is opened anew, must refuse to be exported, and must do what it is for.
func (s *windowsStore) Create(ctx context.Context, id KeyID, spec KeySpec) (Key, error) {
	l, err := s.create(ctx, id, spec)
	if err != nil {
		return nil, s.wrap(err, "create key", id)
	}
	return s.key(id, l), nil
}

func (s *windowsStore) create(ctx context.Context, id KeyID, spec KeySpec) (located, error) {
	if err := s.makeRoom(id); err != nil {
		return located{}, err
	}
	if !slices.Contains(s.info.Algorithms, spec.Algorithm) {
		return located{}, fmt.Errorf("%w: no keys of kind %q", ErrUnsupported, spec.Algorithm)
	}
	var failed []error
	for _, p := range s.providers {
		if err := ctx.Err(); err != nil {
			return located{}, err
		}
		l, err := makeWith(p, id, spec)
		if err == nil {
			return l, nil
		}
		failed = append(failed, err)
		if !errors.Is(windowsError(err), ErrUnsupported) {
			break // a refusal is not a reason for a weaker key
		}
	}
	return located{}, errors.Join(failed...)
}

// makeRoom gives [ErrExists] if a usable key bears the name, and clears away
// what a broken attempt left. Half a key that a certificate names stays: a
// person may still mend it.
func (s *windowsStore) makeRoom(id KeyID) error {
	all, err := s.locate(id)
	if err != nil || len(all) == 0 {
		return err
	}
	mine, err := filed(wincrypt.My)
	if err != nil {
		return err
	}
	for _, l := range all {
		certified := certifies(mine, id, l.public)
		if l.usable(certified) {
			return ErrExists
		}
		if certified {
			return fmt.Errorf("half of a key that has a certificate is there: %w", ErrDenied)
		}
	}
	return clearAway(all, id)
}

func clearAway(all []located, id KeyID) error {
	var failed []error
	for _, l := range all {
		if err := l.provider.remove(string(id)); err != nil && wincrypt.ClassOf(err) != wincrypt.Missing {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// makeWith takes away what it made if that is not what was asked for.
func makeWith(p windowsProvider, id KeyID, spec KeySpec) (located, error) {
	if err := p.make(string(id), spec); err != nil {
		return located{}, err
	}
	facts, err := look(p, string(id))
	switch {
	case wincrypt.ClassOf(err) == wincrypt.Missing || wincrypt.ClassOf(err) == wincrypt.Unsupported:
		err = fmt.Errorf("%w: the provider keeps no keys: %w", ErrUnsupported, err)
	case err != nil:
	case !facts.sealed:
		err = fmt.Errorf("%w: the provider lets the key be exported", ErrUnsupported)
	default:
		err = serves(p, id, facts.public, spec)
	}
	l := located{p, facts}
	if err != nil {
		return located{}, errors.Join(err, clearAway([]located{l}, id))
	}
	return l, nil
}

func (s *windowsStore) Open(_ context.Context, id KeyID) (Key, error) {
	l, err := s.find(id)
	if err != nil {
		return nil, s.wrap(err, "open key", id)
	}
	return s.key(id, l), nil
}

// Delete refuses if a certificate is for the key or names it as its own.
func (s *windowsStore) Delete(_ context.Context, id KeyID) error {
	return s.wrap(s.delete(id), "delete key", id)
}

func (s *windowsStore) delete(id KeyID) error {
	all, err := s.locate(id)
	if err != nil || len(all) == 0 {
		return err
	}
	mine, err := filed(wincrypt.My)
	if err != nil {
		return err
	}
	for _, l := range all {
		if certifies(mine, id, l.public) {
			return fmt.Errorf("a certificate is tied to the key: %w", ErrDenied)
		}
	}
	return clearAway(all, id)
}

// Keys lists our keys of all providers, half ones too. A key that cannot be
// read is listed without its public part.
func (s *windowsStore) Keys(context.Context) ([]KeyInfo, error) {
	infos, err := s.list()
	if err != nil {
		return nil, fmt.Errorf("list keys of store %s: %w", s.info.Name, windowsError(err))
	}
	return infos, nil
}

func (s *windowsStore) list() ([]KeyInfo, error) {
	mine, err := filed(wincrypt.My)
	if err != nil {
		return nil, err
	}
	found := map[KeyID]KeyInfo{}
	for _, p := range s.providers {
		names, err := p.names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			id := KeyID(name)
			if !strings.HasPrefix(name, OurPrefix) || !containerName.MatchString(name) {
				continue
			}
			info := KeyInfo{ID: id}
			facts, err := look(p, name)
			info.Certified = certifies(mine, id, facts.public)
			if err == nil && (located{p, facts}).usable(info.Certified) {
				info.Public = facts.public
			}
			if best, ok := found[id]; !ok || best.Public == nil {
				found[id] = info
			}
		}
	}
	infos := make([]KeyInfo, 0, len(found))
	for _, info := range found {
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b KeyInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos, nil
}
