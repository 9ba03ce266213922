package service

import (
	"errors"
	"fmt"
	"io/fs"

	"smime-agent/agent/state"
	"smime-agent/platform"
)

// Trouble is a stable word for why the service cannot start.
type Trouble string

// The troubles. The last is for whatever else the system says.
const (
	RecordInUse  Trouble = "inuse"     // another agent holds the record
	RecordNewer  Trouble = "newer"     // a newer version wrote the record
	AddressTaken Trouble = "taken"     // somebody answers at the address, or something lies there
	NotOurs      Trouble = "notours"   // a folder belongs to, or is open to, another account
	NotPermitted Trouble = "forbidden" // the system refuses this account
	Lacking      Trouble = "lacking"   // this build lacks what it needs here
	CannotUse    Trouble = "unusable"
)

// StartError is why [Run] gave up before it began.
type StartError struct {
	Trouble Trouble
	// Path is the folder, file or address that it is about.
	Path string
	Err  error
}

func (e *StartError) Error() string { return fmt.Sprintf("use %s: %v", e.Path, e.Err) }

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Err }

// notStarted sorts what keeps the service from starting; nil stays nil.
func notStarted(path string, err error) error {
	if err == nil {
		return nil
	}
	e := &StartError{Trouble: CannotUse, Path: path, Err: err}
	switch {
	case platform.Lacking() != nil && errors.Is(err, platform.Lacking()):
		e.Trouble = Lacking
	case errors.Is(err, state.ErrInUse):
		e.Trouble = RecordInUse
	case errors.Is(err, state.ErrNewer):
		e.Trouble = RecordNewer
	case errors.Is(err, platform.ErrExists):
		e.Trouble = AddressTaken
	case errors.Is(err, fs.ErrPermission):
		e.Trouble = NotPermitted
	case errors.Is(err, platform.ErrDenied):
		e.Trouble = NotOurs
	}
	return e
}
