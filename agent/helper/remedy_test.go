package helper

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

type plain struct{ Words }

func (plain) Hint(code enroll.Code, store string) string { return string(code) + " in " + store }

func TestRemedies(t *testing.T) {
	other := errors.New("0x70")
	rows := []struct {
		about subject
		err   error
		kind  enroll.Kind
		code  enroll.Code
	}{
		{aboutStore, platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{aboutStore, platform.ErrDenied, enroll.Waiting, enroll.CodeStoreDenied},
		{aboutStore, platform.ErrNotFound, enroll.Waiting, enroll.CodeStoreMissing},
		{aboutStore, platform.ErrUnsupported, enroll.Waiting, enroll.CodeStoreUnsuitable},
		{aboutStore, platform.ErrExists, enroll.Transient, enroll.CodeStoreFailed},
		{aboutStore, context.Canceled, enroll.Transient, enroll.CodeStoreFailed},
		{aboutStore, context.DeadlineExceeded, enroll.Transient, enroll.CodeStoreFailed},
		{aboutStore, other, enroll.Transient, enroll.CodeStoreFailed},
		{aboutKey, platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{aboutKey, platform.ErrDenied, enroll.Waiting, enroll.CodeStoreDenied},
		{aboutKey, platform.ErrNotFound, enroll.Final, enroll.CodeKeyMissing},
		{aboutKey, platform.ErrUnsupported, enroll.Waiting, enroll.CodeStoreUnsuitable},
		{aboutKey, platform.ErrExists, enroll.Transient, enroll.CodeStoreFailed},
		{aboutKey, context.Canceled, enroll.Transient, enroll.CodeStoreFailed},
		{aboutKey, context.DeadlineExceeded, enroll.Transient, enroll.CodeStoreFailed},
		{aboutKey, other, enroll.Transient, enroll.CodeStoreFailed},
		{aboutPerson, platform.ErrUnsupported, enroll.Waiting, enroll.CodeNobodyToAsk},
		{aboutPerson, platform.ErrLocked, enroll.Waiting, enroll.CodeNobodyToAsk},
		{aboutPerson, platform.ErrDenied, enroll.Waiting, enroll.CodeNobodyToAsk},
		{aboutPerson, context.Canceled, enroll.Waiting, enroll.CodeConsentPending},
		{aboutPerson, context.DeadlineExceeded, enroll.Waiting, enroll.CodeConsentPending},
		{aboutPerson, other, enroll.Transient, enroll.CodeNobodyToAsk},
		// A person who gives no PIN: locked, because denied.
		{aboutKey, fmt.Errorf("%w: %w", platform.ErrLocked, platform.ErrDenied), enroll.Waiting, enroll.CodeStoreLocked},
		// A task that was taken back while the PIN was asked for.
		{aboutKey, fmt.Errorf("%w: %w", platform.ErrLocked, context.Canceled), enroll.Transient, enroll.CodeStoreFailed},
		{"nothing known", other, enroll.Transient, enroll.CodeInternal},
	}
	s := &Session{Words: plain{}}
	for _, r := range rows {
		err := s.failure(r.about, "mem", fmt.Errorf("try: %w", r.err))
		e, ok := errors.AsType[*enroll.Error](err)
		if !ok || e.Kind != r.kind || e.Code != r.code || e.Hint != string(r.code)+" in mem" || !errors.Is(err, r.err) {
			t.Errorf("%s, %v: %+v, want %s %s", r.about, r.err, e, r.kind, r.code)
		}
	}
	for _, row := range remedies() {
		tested := false
		for _, r := range rows {
			tested = tested || r.about == row.about && (row.cause == nil || errors.Is(r.err, row.cause))
		}
		if !tested {
			t.Errorf("no test for the row %s, %v", row.about, row.cause)
		}
	}
	if err := s.failure(aboutStore, "mem", nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	own := &enroll.Error{Kind: enroll.Final, Code: enroll.CodeKeyMissing}
	if err := s.failure(aboutStore, "mem", own); !errors.Is(err, own) || enroll.AsError(err) != own {
		t.Errorf("an error with a remedy became %v", err)
	}
}

func TestSplit(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b\nb"), fmt.Errorf("c: %w: %w", platform.ErrLocked, platform.ErrDenied)
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {a, 1}, {b, 1}, {c, 1}, {errors.Join(a, b), 2}, {errors.Join(errors.Join(a, b), c), 3}, {errors.Join(a), 1},
	} {
		if got := split(tt.err); len(got) != tt.want {
			t.Errorf("%q: %d parts, want %d", tt.err, len(got), tt.want)
		}
	}
}

func TestSameKeyFailsClosed(t *testing.T) {
	if sameKey(nil, nil) || sameKey("a", "a") {
		t.Error("kinds without Equal are taken for equal")
	}
}
