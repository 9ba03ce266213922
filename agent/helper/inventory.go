package helper

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// Inventory lists the stores, best first, and the keys that bear our names. It
// never makes a dialog appear: what is locked counts as a failure. A store whose
// keys cannot be read is among the failures and not among the stores, so that
// nobody takes its keys for gone.
func (s *Session) Inventory(ctx context.Context, modules []enroll.Module) (enroll.Inventory, error) {
	s.mu.Lock()
	s.modules = slices.Clone(modules)
	s.mu.Unlock()
	return s.inventory(ctx, modules)
}

func (s *Session) inventory(ctx context.Context, modules []enroll.Module) (enroll.Inventory, error) {
	ctx = withoutDialogs(ctx)
	stores, failures, err := s.list(ctx, modules)
	if err != nil {
		return enroll.Inventory{}, s.failure(aboutStore, "", fmt.Errorf("list stores: %w", err))
	}
	var v enroll.Inventory
	for _, err := range failures {
		v.Failures = append(v.Failures, enroll.AsError(s.failure(aboutStore, "", err)))
	}
	for _, store := range stores {
		info := store.Info()
		keys, err := s.keysOf(ctx, store)
		if ctx.Err() != nil {
			return enroll.Inventory{}, s.failure(aboutStore, info.Name, fmt.Errorf("list keys: %w", ctx.Err()))
		}
		if err != nil {
			v.Failures = append(v.Failures, enroll.AsError(s.failure(aboutStore, info.Name, err)))
			continue
		}
		v.Stores = append(v.Stores, storeFound(info))
		v.Keys = append(v.Keys, keys...)
	}
	return v, nil
}

func storeFound(info platform.StoreInfo) enroll.StoreFound {
	f := enroll.StoreFound{Name: info.Name, Protection: string(info.Protection), Consumers: slices.Clone(info.Consumers), CostlyKeys: info.CostlyKeys}
	for _, a := range info.Algorithms {
		f.Algorithms = append(f.Algorithms, string(a))
	}
	return f
}

// keysOf reads one store in its turn.
func (s *Session) keysOf(ctx context.Context, store platform.Store) ([]enroll.KeyFound, error) {
	name := store.Info().Name
	release, err := s.turn(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	infos, err := store.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("list keys of store %s: %w", name, err)
	}
	var found []enroll.KeyFound
	for _, info := range infos {
		if !strings.HasPrefix(string(info.ID), enroll.IDPrefix) {
			continue
		}
		k := enroll.KeyFound{ID: enroll.ID(info.ID), Store: name, Created: info.Created}
		if info.Public != nil {
			if k.PublicKey, err = x509.MarshalPKIXPublicKey(info.Public); err != nil {
				return nil, fmt.Errorf("key %s of store %s: %w", info.ID, name, err)
			}
		}
		if k.Chain, err = chainFor(ctx, store, info); err != nil {
			return nil, err
		}
		found = append(found, k)
	}
	return found, nil
}

// chainFor finds the certificate of a key that has one.
func chainFor(ctx context.Context, store platform.Store, info platform.KeyInfo) ([][]byte, error) {
	if !info.Certified {
		return nil, nil
	}
	chain, err := store.Find(ctx, info.ID)
	if errors.Is(err, platform.ErrNotFound) {
		return nil, nil // removed since the keys were listed
	}
	if err != nil {
		return nil, fmt.Errorf("find certificate of key %s: %w", info.ID, err)
	}
	return rawOf(chain), nil
}

func rawOf(chain []*x509.Certificate) [][]byte {
	raw := make([][]byte, 0, len(chain))
	for _, c := range chain {
		raw = append(raw, c.Raw)
	}
	return raw
}

// Discard removes a key that never got a certificate. The store refuses any
// other, which comes back as [enroll.CodeStoreDenied].
func (s *Session) Discard(ctx context.Context, store string, id enroll.ID, modules []enroll.Module) error {
	_, err := run(ctx, s, job[struct{}]{store, id, modules, func(ctx context.Context, store platform.Store) (struct{}, error) {
		if err := store.Delete(ctx, platform.KeyID(id)); err != nil {
			return struct{}{}, fmt.Errorf("discard key %s: %w", id, err)
		}
		return struct{}{}, nil
	}})
	return err
}
