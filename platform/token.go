//go:build cgo || windows

package platform

import (
	"context"
	"errors"
	"fmt"

	"smime-agent/platform/internal/pkcs11"
)

// tokenStore keeps keys and certificates in a PKCS #11 token. Each operation
// opens the token anew and finds its objects again by label, so nothing goes
// stale when other programs use the same token.
type tokenStore struct {
	info  StoreInfo
	place pkcs11.Place
	// nss is nil unless the token is an NSS database.
	nss *nssDatabase
	pin *pinKeeper
}

// access says what an operation needs.
type access struct {
	write bool
	// fresh may make an NSS database that is not there.
	fresh bool
	// private objects are seen only after a login, where the token wants one.
	private bool
}

func (s *tokenStore) Info() StoreInfo { return s.info }

// use runs fn on the open token, after a login if need be. fn can run twice,
// so it must be repeatable. The person is asked while nothing is held.
func (s *tokenStore) use(ctx context.Context, a access, what string, fn func(*pkcs11.Session) error) error {
	err := s.try(ctx, a, fn)
	if !a.private && pkcs11.LoginMayHelp(err) {
		a.private = true
		err = s.try(ctx, a, fn)
	}
	if s.nss != nil && pkcs11.ClassOf(err) == pkcs11.Failed {
		// NSS says no more when SQLite's lock is not had within a second.
		err = fmt.Errorf("another program holds the database, or it is damaged: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%s in store %s: %w", what, s.info.Name, sentinel(err))
	}
	return nil
}

func (s *tokenStore) try(ctx context.Context, a access, fn func(*pkcs11.Session) error) error {
	if s.nss != nil {
		if err := s.nss.prepare(a.fresh); err != nil {
			return err
		}
	}
	once := func(pin string, known bool) error {
		return s.place.Use(ctx, a.write, func(ss *pkcs11.Session) error {
			if err := s.unlock(ss, a, pin, known); err != nil {
				return err
			}
			return fn(ss)
		})
	}
	if !a.private {
		return once("", false)
	}
	return s.pin.with(ctx, s.info.Name, once)
}

// unlock brings the token to where private objects are seen. States of an NSS
// database by its token flags: 0x205 new, 0x609 empty password (a PIN given
// would be ignored, right or wrong, so none is asked for), 0x60d password set.
func (s *tokenStore) unlock(ss *pkcs11.Session, a access, pin string, known bool) error {
	if s.nss != nil && !ss.Token.PINSet() {
		if a.write {
			return ss.SetEmptyPIN()
		}
		return nil // a new database has no private objects
	}
	if !a.private || !ss.Token.LoginRequired() {
		return nil
	}
	switch t := ss.Token; {
	case !t.PINSet():
		return fmt.Errorf("token %q has no PIN yet: %w", t.Label, ErrLocked)
	case t.PINPad():
		return fmt.Errorf("token %q wants its PIN typed at the device: %w", t.Label, ErrUnsupported)
	case t.PINBlocked():
		return fmt.Errorf("token %q is blocked after wrong PINs: %w", t.Label, ErrLocked)
	case t.LastTry():
		return fmt.Errorf("token %q would be blocked by one more wrong PIN: %w", t.Label, ErrLocked)
	case !known:
		return errPINWanted
	}
	err := ss.Login(pin)
	if pkcs11.PINIncorrect(err) {
		return fmt.Errorf("%w: %w", errPINWrong, err)
	}
	return err
}

// sentinel puts the sentinel beside a module's error code. A token that was
// pulled out is locked, not missing: its keys are well, and somebody must act.
func sentinel(err error) error {
	for _, known := range []error{ErrNotFound, ErrExists, ErrLocked, ErrDenied, ErrUnsupported} {
		if errors.Is(err, known) {
			return err
		}
	}
	switch pkcs11.ClassOf(err) {
	case pkcs11.Absent, pkcs11.Locked:
		return fmt.Errorf("%w: %w", ErrLocked, err)
	case pkcs11.Denied:
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case pkcs11.Unsupported:
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	default:
		return err
	}
}
