package helper

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// list finds the stores, and what keeps others from being used.
func (s *Session) list(ctx context.Context, modules []enroll.Module) ([]platform.Store, []error, error) {
	release, err := s.turn(ctx, turnOfListing)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	wanted := make([]platform.Module, 0, len(modules))
	for _, m := range modules {
		wanted = append(wanted, platform.Module{Path: m.Path, TokenLabel: m.TokenLabel})
	}
	stores, err := s.Stores(ctx, wanted)
	return stores, split(err), nil
}

// split gives the parts of a joined error. An error that wraps several causes
// in one sentence stays whole, and so does what a joined error is wrapped in.
func split(err error) []error {
	if err == nil {
		return nil
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(several.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var parts []error
	for _, e := range several.Unwrap() {
		parts = append(parts, split(e)...)
	}
	return parts
}

// open finds one store by its name. A store that is there but cannot be used is
// reported by its own failure, not as missing.
func (s *Session) open(ctx context.Context, name string, modules []enroll.Module) (platform.Store, error) {
	stores, failures, err := s.list(ctx, modules)
	if err != nil {
		return nil, err
	}
	for _, store := range stores {
		if store.Info().Name == name {
			return store, nil
		}
	}
	for _, err := range failures {
		if strings.Contains(err.Error(), name) {
			return nil, fmt.Errorf("open store %s: %w", name, err)
		}
	}
	return nil, fmt.Errorf("open store %s: %w", name, errors.Join(append([]error{platform.ErrNotFound}, failures...)...))
}

// openKey finds a key; what is wrong with it is about the key, not the store.
func (s *Session) openKey(ctx context.Context, store platform.Store, id enroll.ID) (platform.Key, error) {
	key, err := store.Open(ctx, platform.KeyID(id))
	if err != nil {
		return nil, s.failure(aboutKey, store.Info().Name, fmt.Errorf("open key %s: %w", id, err))
	}
	return key, nil
}

// closeKey gives a handle back. There is nothing to be done about a failure:
// what the handle was for has been done or has failed by itself.
func closeKey(key platform.Key) { _ = key.Close() }
