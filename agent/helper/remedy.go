package helper

import (
	"context"
	"errors"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// subject is what an error is about: "not found" has another remedy for a key
// than for a store.
type subject string

const (
	aboutStore  subject = "store"
	aboutKey    subject = "key"
	aboutPerson subject = "person"
)

// remedy is a row of the table that leads from errors of platform to what is to
// be done.
type remedy struct {
	about subject
	cause error // nil fits any
	kind  enroll.Kind
	code  enroll.Code
}

// remedies is looked through from the top; the first row that fits counts. An
// end of ctx comes first, since stores wrap it in whatever they were doing, and
// "locked" before "denied", since a person who gives no PIN is both.
func remedies() []remedy {
	return []remedy{
		{aboutPerson, context.Canceled, enroll.Waiting, enroll.CodeConsentPending},
		{aboutPerson, context.DeadlineExceeded, enroll.Waiting, enroll.CodeConsentPending},
		{aboutPerson, platform.ErrUnsupported, enroll.Waiting, enroll.CodeNobodyToAsk},
		{aboutPerson, platform.ErrLocked, enroll.Waiting, enroll.CodeNobodyToAsk},
		{aboutPerson, platform.ErrDenied, enroll.Waiting, enroll.CodeNobodyToAsk},
		{aboutPerson, nil, enroll.Transient, enroll.CodeNobodyToAsk},

		{aboutKey, context.Canceled, enroll.Transient, enroll.CodeStoreFailed},
		{aboutKey, context.DeadlineExceeded, enroll.Transient, enroll.CodeStoreFailed},
		{aboutKey, platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{aboutKey, platform.ErrDenied, enroll.Waiting, enroll.CodeStoreDenied},
		{aboutKey, platform.ErrNotFound, enroll.Final, enroll.CodeKeyMissing},
		{aboutKey, platform.ErrUnsupported, enroll.Waiting, enroll.CodeStoreUnsuitable},
		{aboutKey, nil, enroll.Transient, enroll.CodeStoreFailed},

		{aboutStore, context.Canceled, enroll.Transient, enroll.CodeStoreFailed},
		{aboutStore, context.DeadlineExceeded, enroll.Transient, enroll.CodeStoreFailed},
		{aboutStore, platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{aboutStore, platform.ErrDenied, enroll.Waiting, enroll.CodeStoreDenied},
		{aboutStore, platform.ErrNotFound, enroll.Waiting, enroll.CodeStoreMissing},
		{aboutStore, platform.ErrUnsupported, enroll.Waiting, enroll.CodeStoreUnsuitable},
		{aboutStore, nil, enroll.Transient, enroll.CodeStoreFailed},
	}
}

// failure makes an [enroll.Error] of any error, and leaves one that is one as it
// is. nil stays nil.
func (s *Session) failure(about subject, store string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*enroll.Error](err); ok {
		return err
	}
	for _, r := range remedies() {
		if r.about == about && (r.cause == nil || errors.Is(err, r.cause)) {
			return s.fail(r.kind, r.code, store, err)
		}
	}
	return s.fail(enroll.Transient, enroll.CodeInternal, store, err)
}

func (s *Session) fail(kind enroll.Kind, code enroll.Code, store string, err error) error {
	return &enroll.Error{Kind: kind, Code: code, Hint: s.Words.Hint(code, store), Err: err}
}
