package refusal

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/store"
)

func TestStatus(t *testing.T) {
	for _, row := range []struct {
		err      error
		code     codes.Code
		reason   string
		retry    bool
		internal bool
	}{
		{fmt.Errorf("x: %w", store.ErrOverloaded), codes.ResourceExhausted, "OVERLOADED", true, false},
		{fmt.Errorf("x: %w", ca.ErrOverloaded), codes.ResourceExhausted, "OVERLOADED", true, false},
		{fmt.Errorf("x: %w: %w", store.ErrUnavailable, context.DeadlineExceeded), codes.Unavailable, "UNAVAILABLE", true, false},
		{fmt.Errorf("x: %w", store.ErrNoSnapshot), codes.FailedPrecondition, "", false, false},
		{errors.New("disk full"), codes.Unavailable, "UNAVAILABLE", true, true},
		{fmt.Errorf("x: %w", &lint.Error{}), codes.FailedPrecondition, "LINT_FAILED", false, true},
		{New(controlv1.Reason_REASON_DEVICE_PENDING, "wait"), codes.FailedPrecondition, "DEVICE_PENDING", true, false},
		{context.Canceled, codes.Canceled, "", false, false},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "", false, false},
	} {
		err, internal := Status(row.err)
		st := status.Convert(err)
		reason, retry := "", false
		for _, detail := range st.Details() {
			switch d := detail.(type) {
			case *errdetails.ErrorInfo:
				reason = d.GetReason()
			case *errdetails.RetryInfo:
				retry = d.GetRetryDelay().AsDuration() > 0
			}
		}
		if st.Code() != row.code || reason != row.reason || retry != row.retry || internal != row.internal {
			t.Errorf("%v: %v %q retry %v internal %v, want %+v", row.err, st.Code(), reason, retry, internal, row)
		}
		if internal && row.reason == "UNAVAILABLE" && st.Message() == row.err.Error() {
			t.Error("an internal error's text goes out")
		}
	}
}

// TestEveryReasonHasACode fails when the contract gets a reason that the table lacks.
func TestEveryReasonHasACode(t *testing.T) {
	for number, name := range controlv1.Reason_name {
		if number != 0 && codeOf(controlv1.Reason(number)) == codes.Unknown {
			t.Errorf("%s has no code", name)
		}
	}
}
