package local

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// Reason is a stable word for why a call was refused.
type Reason string

// The reasons.
const (
	// ReasonNotRunning: nothing answers at the address.
	ReasonNotRunning Reason = "not-running"
	// ReasonImpostor: what answers is not the agent's service.
	ReasonImpostor Reason = "impostor"
	// ReasonDenied: the caller may not do that.
	ReasonDenied Reason = "denied"
	// ReasonNotFound: there is no such thing, or it is not the caller's.
	ReasonNotFound Reason = "not-found"
	// ReasonNothing: the caller has nothing that it could be done to.
	ReasonNothing Reason = "nothing"
	// ReasonWrongState: it is there, but not in a fitting state.
	ReasonWrongState Reason = "wrong-state"
	// ReasonRuled: policy rules it; only an administrator may do otherwise.
	ReasonRuled Reason = "ruled-by-policy"
	// ReasonTooMany: too many calls or connections of this user.
	ReasonTooMany Reason = "too-many"
	// ReasonInvalid: the request makes no sense.
	ReasonInvalid Reason = "invalid"
	// ReasonInternal: the service's log knows more.
	ReasonInternal Reason = "internal-error"
	// ReasonHint: the service's own sentence is in Text, and what it is about in Code.
	ReasonHint Reason = "hint"
)

// Error is why a call did not work. Text, if there is one, may be shown; it is in
// English, so that Code, if it is known, has better words.
type Error struct {
	Reason Reason
	Text   string
	Code   enroll.Code
	Err    error
}

func (e *Error) Error() string {
	s := "local: " + string(e.Reason)
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// wire is how reasons travel: one table for both directions.
var wire = map[Reason]codes.Code{
	ReasonDenied:     codes.PermissionDenied,
	ReasonNotFound:   codes.NotFound,
	ReasonNothing:    codes.NotFound,
	ReasonWrongState: codes.FailedPrecondition,
	ReasonRuled:      codes.PermissionDenied,
	ReasonTooMany:    codes.ResourceExhausted,
	ReasonInvalid:    codes.InvalidArgument,
	ReasonInternal:   codes.Internal,
	ReasonHint:       codes.FailedPrecondition,
	ReasonNotRunning: codes.Unavailable,
}

// domain names this API in ErrorInfo (google.rpc, error_details.proto).
const domain = "local.smime-agent"

// codeField names what an error is about in ErrorInfo's metadata.
const codeField = "code"

// toStatus turns an error of the service into one for the wire; internal says
// that the caller learns nothing of it, so that it must be logged.
func toStatus(err error) (s error, internal bool) {
	var e *Error
	switch found, hinted := errors.AsType[*enroll.Error](err); {
	case errors.As(err, &e):
	case hinted && found.Hint != "":
		e = &Error{Reason: ReasonHint, Text: found.Hint, Code: found.Code}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err(), false
	default:
		e, internal = &Error{Reason: ReasonInternal}, true
	}
	code, known := wire[e.Reason]
	if !known {
		code = codes.Unknown
	}
	st := status.New(code, e.Text)
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: domain}
	if e.Code != "" {
		info.Metadata = map[string]string{codeField: string(e.Code)}
	}
	if detailed, err := st.WithDetails(info); err == nil {
		st = detailed
	}
	return st.Err(), internal
}

// fromStatus turns what came over the wire into an [*Error].
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			return &Error{Reason: Reason(info.GetReason()), Text: st.Message(), Code: enroll.Code(info.GetMetadata()[codeField]), Err: err}
		}
	}
	switch st.Code() {
	case codes.Canceled:
		return &Error{Reason: ReasonInternal, Err: context.Canceled}
	case codes.DeadlineExceeded:
		return &Error{Reason: ReasonInternal, Err: context.DeadlineExceeded}
	case codes.Unavailable:
		return &Error{Reason: ReasonNotRunning, Err: err}
	case codes.ResourceExhausted:
		return &Error{Reason: ReasonTooMany, Err: err}
	default:
		return &Error{Reason: ReasonInternal, Err: err}
	}
}

// fromDial sorts what can go wrong before the first message.
func fromDial(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, platform.ErrDenied):
		return &Error{Reason: ReasonImpostor, Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Reason: ReasonDenied, Err: err}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, platform.ErrNotFound),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded):
		return &Error{Reason: ReasonNotRunning, Err: err}
	default:
		return &Error{Reason: ReasonNotRunning, Err: err}
	}
}
