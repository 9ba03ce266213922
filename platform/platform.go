// Package platform is the only place where operating systems differ. Each
// capability is one small interface, documented here; each system fills it in
// one file per capability (keystore_linux.go, prompt_linux.go, …). What a
// system cannot do answers [ErrUnsupported]; it never breaks the build.
package platform

import "errors"

// The five sentinels that every capability speaks; mail programs have two more
// ([ErrBusy], [ErrManaged]). They wrap the system's own
// error, whose code stays in the chain.
var (
	// ErrNotFound says that there is no such key, certificate, secret or store.
	ErrNotFound = errors.New("not found")
	// ErrExists says that the name is taken.
	ErrExists = errors.New("already exists")
	// ErrLocked says that somebody must unlock first: a password, a PIN, a login.
	ErrLocked = errors.New("locked")
	// ErrDenied says that the system or the store refused.
	ErrDenied = errors.New("denied")
	// ErrUnsupported says that this system or store cannot do it.
	ErrUnsupported = errors.New("not supported")
)
