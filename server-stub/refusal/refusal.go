// Package refusal turns the errors of the reference server into what its
// callers get: a gRPC status with the contract's reason and, where that helps,
// when to come back.
package refusal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/store"
)

// domain is that of every google.rpc.ErrorInfo of ours.
const domain = "smime-agent"

// The waits that refusals ask for.
const (
	overloadRetry = 5 * time.Second
	// overloadSpread keeps those who were refused together from coming back together.
	overloadSpread = 10 * time.Second
	diskRetry      = time.Minute
	databaseRetry  = 15 * time.Second
	pendingRetry   = time.Minute
)

// refusal is an error with the reason that the contract names.
type refusal struct {
	code   codes.Code
	reason controlv1.Reason
	text   string
	retry  time.Duration
}

func (r *refusal) Error() string { return r.text }

// codeOf gives each reason its gRPC code.
func codeOf(reason controlv1.Reason) codes.Code {
	switch reason {
	case controlv1.Reason_REASON_IDENTITY_REQUIRED, controlv1.Reason_REASON_IDENTITY_EXPIRED,
		controlv1.Reason_REASON_TOKEN_UNKNOWN, controlv1.Reason_REASON_TOKEN_EXPIRED,
		controlv1.Reason_REASON_TOKEN_USED_UP, controlv1.Reason_REASON_TOKEN_REVOKED:
		return codes.Unauthenticated
	case controlv1.Reason_REASON_DEVICE_REFUSED, controlv1.Reason_REASON_NOT_ASSIGNED:
		return codes.PermissionDenied
	case controlv1.Reason_REASON_DEVICE_PENDING, controlv1.Reason_REASON_LINT_FAILED, controlv1.Reason_REASON_CODE_EXPIRED:
		return codes.FailedPrecondition
	case controlv1.Reason_REASON_CSR_INVALID, controlv1.Reason_REASON_KEY_UNSUITABLE, controlv1.Reason_REASON_MALFORMED,
		controlv1.Reason_REASON_CODE_WRONG, controlv1.Reason_REASON_PUBLICATION_INVALID:
		return codes.InvalidArgument
	case controlv1.Reason_REASON_CSR_CHANGED, controlv1.Reason_REASON_KEY_REUSED:
		return codes.AlreadyExists
	case controlv1.Reason_REASON_PROFILE_UNKNOWN, controlv1.Reason_REASON_REFERENCE_UNKNOWN:
		return codes.NotFound
	case controlv1.Reason_REASON_OVERLOADED:
		return codes.ResourceExhausted
	case controlv1.Reason_REASON_UNAVAILABLE:
		return codes.Unavailable
	default:
		return codes.Unknown
	}
}

// New makes an error with a reason of the contract; text is one sentence for the caller.
func New(reason controlv1.Reason, text string, args ...any) error {
	r := &refusal{code: codeOf(reason), reason: reason, text: fmt.Sprintf(text, args...)}
	if reason == controlv1.Reason_REASON_DEVICE_PENDING {
		r.retry = pendingRetry
	}
	return r
}

// reasonName is the reason as ErrorInfo carries it.
func reasonName(reason controlv1.Reason) string {
	return strings.TrimPrefix(reason.String(), "REASON_")
}

// Status turns any error of a handler into what the caller gets. Internal
// says that it is a fault of ours, which the log should have.
func Status(err error) (out error, internal bool) {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status(), false
	}
	if _, ok := status.FromError(err); ok {
		return err, false
	}
	if _, ok := errors.AsType[*lint.Error](err); ok {
		r := &refusal{reason: controlv1.Reason_REASON_LINT_FAILED, text: err.Error()}
		r.code = codeOf(r.reason)
		return r.status(), true
	}
	switch {
	case errors.Is(err, store.ErrUnavailable): // first, since the reason may be a time that ran out; the store logs when it begins and ends
		r := &refusal{
			code: codes.Unavailable, reason: controlv1.Reason_REASON_UNAVAILABLE,
			text: "The server's database does not answer at the moment.", retry: databaseRetry,
		}
		return r.status(), false
	case errors.Is(err, context.Canceled):
		return status.FromContextError(context.Canceled).Err(), false
	case errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(context.DeadlineExceeded).Err(), false
	case errors.Is(err, store.ErrOverloaded), errors.Is(err, ca.ErrOverloaded):
		r := &refusal{
			code: codes.ResourceExhausted, reason: controlv1.Reason_REASON_OVERLOADED,
			text: "The server has more to do than it can queue.", retry: overloadRetry + rand.N(overloadSpread), //nolint:gosec // spreads, hides nothing
		}
		return r.status(), false
	case errors.Is(err, store.ErrNoSnapshot):
		return status.Error(codes.FailedPrecondition,
			"The records are in PostgreSQL: back them up with pg_dump, or by the database's own continuous archiving."), false
	}
	// What exactly is wrong inside is nobody's business outside.
	r := &refusal{
		code: codes.Unavailable, reason: controlv1.Reason_REASON_UNAVAILABLE,
		text: "The server's disk or CA does not work at the moment.", retry: diskRetry,
	}
	return r.status(), true
}

func (r *refusal) status() error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: domain, Reason: reasonName(r.reason)}}
	if r.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retry)})
	}
	st, err := status.New(r.code, r.text).WithDetails(details...)
	if err != nil {
		return status.Error(r.code, r.text)
	}
	return st.Err()
}
