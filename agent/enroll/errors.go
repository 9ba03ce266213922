package enroll

import (
	"errors"
	"fmt"
	"time"
)

// Kind sorts errors by remedy.
type Kind string

// The kinds.
const (
	// Transient: try again, ever more slowly.
	Transient Kind = "transient"
	// Waiting: somebody must act; an event wakes it, no attempt is counted.
	Waiting Kind = "waiting"
	// Final: this enrollment is over; a new one needs a new reason.
	Final Kind = "final"
)

// Code is a stable word for what is wrong. Each has an entry in docs/runbook.md.
type Code string

// What can hold one enrollment up.
const (
	CodeUserAbsent          Code = "user-absent"
	CodeConsentPending      Code = "consent-pending"
	CodeConsentPostponed    Code = "consent-postponed"
	CodeConsentDeclined     Code = "consent-declined"
	CodeNobodyToAsk         Code = "nobody-to-ask"
	CodeStoreMissing        Code = "store-missing"
	CodeStoreLocked         Code = "store-locked"
	CodeStoreDenied         Code = "store-denied"
	CodeStoreUnsuitable     Code = "store-unsuitable" // too weak, or no accepted kind of key
	CodeStoreFailed         Code = "store-failed"
	CodeStoreHangs          Code = "store-hangs" // a call into it does not return
	CodeKeyMissing          Code = "key-missing"
	CodeProofFailed         Code = "proof-failed"
	CodeOldKeyUnusable      Code = "old-key-unusable"
	CodeControlUnreachable  Code = "control-unreachable"
	CodeControlOverloaded   Code = "control-overloaded"
	CodeControlRejected     Code = "control-rejected" // central cannot make sense of what we say
	CodeApprovalPending     Code = "approval-pending"
	CodeAuthorityPending    Code = "authority-pending"
	CodeChallengePending    Code = "challenge-pending"
	CodeRequestRefused      Code = "request-refused"
	CodeCertificateRejected Code = "certificate-rejected"
	CodeMailRestart         Code = "mail-program-restart" // it must be closed, or started anew
	CodeMailManaged         Code = "mail-program-managed"
	CodeMailFailed          Code = "mail-program-failed"
	CodeMailByHand          Code = "mail-program-by-hand" // what no tool can set
	CodeMailOtherStore      Code = "mail-program-other-store"
	CodeMailOldCertificate  Code = "mail-program-old-certificate" // it uses one that ends
	CodeMailUndone          Code = "mail-program-undone"          // somebody wanted what was there before
	CodeRecordFailed        Code = "record-failed"                // the service's own file cannot be written
	CodeInternal            Code = "internal-error"
)

// Error carries the remedy with the cause. Only Hint is ever shown to people.
type Error struct {
	Kind Kind
	Code Code
	// Hint is one or two sentences: what is wrong, what to do.
	Hint string
	// RetryAfter is a wish of the other side; 0 leaves it to the backoff.
	RetryAfter time.Duration
	Err        error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Code, e.Hint)
	}
	return fmt.Sprintf("%s: %v", e.Code, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError finds the *Error in err's chain; any other error is [Transient] with
// [CodeInternal].
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Transient, Code: CodeInternal, Err: err}
}
