package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// row is an answer and what is to become of it.
type row struct {
	name   string
	err    error
	kind   enroll.Kind
	code   enroll.Code
	device bool
	retry  time.Duration
}

// reasonRows has every reason of the contract.
func reasonRows() []row {
	reason := func(r controlv1.Reason) error { return refusal(codes.FailedPrecondition, r) }
	tr, final := enroll.Transient, enroll.Final
	return []row{
		{"", reason(controlv1.Reason_REASON_TOKEN_UNKNOWN), tr, CodeTokenRefused, true, 0},
		{"", reason(controlv1.Reason_REASON_TOKEN_EXPIRED), tr, CodeTokenRefused, true, 0},
		{"", reason(controlv1.Reason_REASON_TOKEN_USED_UP), tr, CodeTokenRefused, true, 0},
		{"", reason(controlv1.Reason_REASON_TOKEN_REVOKED), tr, CodeTokenRefused, true, 0},
		{"", refusal(codes.FailedPrecondition, controlv1.Reason_REASON_DEVICE_PENDING, retryIn(time.Minute)), tr, CodeDevicePending, true, time.Minute},
		{"", reason(controlv1.Reason_REASON_DEVICE_REFUSED), tr, CodeDeviceRefused, true, 0},
		{"", reason(controlv1.Reason_REASON_IDENTITY_EXPIRED), tr, CodeIdentityExpired, true, 0},
		{"", reason(controlv1.Reason_REASON_IDENTITY_REQUIRED), tr, CodeIdentityRefused, true, 0},
		{"", reason(controlv1.Reason_REASON_CSR_INVALID), final, enroll.CodeRequestRefused, false, 0},
		{"", reason(controlv1.Reason_REASON_CSR_CHANGED), final, enroll.CodeRequestRefused, false, 0},
		{"", reason(controlv1.Reason_REASON_NOT_ASSIGNED), final, enroll.CodeRequestRefused, false, 0},
		{"", reason(controlv1.Reason_REASON_PROFILE_UNKNOWN), tr, enroll.CodeControlRejected, false, 0},
		{"", reason(controlv1.Reason_REASON_KEY_UNSUITABLE), final, enroll.CodeRequestRefused, false, 0},
		{"", reason(controlv1.Reason_REASON_KEY_REUSED), final, enroll.CodeRequestRefused, false, 0},
		{"", reason(controlv1.Reason_REASON_REFERENCE_UNKNOWN), final, enroll.CodeControlRejected, false, 0},
		{"", reason(controlv1.Reason_REASON_LINT_FAILED), tr, enroll.CodeControlRejected, false, 0},
		{"", refusal(codes.ResourceExhausted, controlv1.Reason_REASON_OVERLOADED, retryIn(90*time.Second)), tr, enroll.CodeControlOverloaded, true, 90 * time.Second},
		{"", reason(controlv1.Reason_REASON_MALFORMED), tr, enroll.CodeControlRejected, true, 0},
		{"", reason(controlv1.Reason_REASON_UNAVAILABLE), tr, enroll.CodeControlUnreachable, true, 0},
		{"", reason(controlv1.Reason_REASON_PUBLICATION_INVALID), final, enroll.CodeControlRejected, false, 0},
		{"", reason(controlv1.Reason_REASON_CODE_WRONG), enroll.Waiting, enroll.CodeChallengePending, false, 0},
		{"", reason(controlv1.Reason_REASON_CODE_EXPIRED), enroll.Waiting, enroll.CodeChallengePending, false, 0},
	}
}

// otherRows has the answers without a reason that we know.
func otherRows(t *testing.T) []row {
	t.Helper()
	info := func(domain, reason string) error {
		st, err := status.New(codes.PermissionDenied, "x").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	tr := enroll.Transient
	code := func(c codes.Code) error { return status.Error(c, "secret detail of the server") }
	return []row{
		{"unknown reason", info("smime-agent", "INVENTED_LATER"), tr, enroll.CodeControlRejected, true, 0},
		{"another's reason", info("googleapis.com", "TOKEN_EXPIRED"), tr, enroll.CodeControlRejected, true, 0},
		{"the reason for none", info("smime-agent", "UNSPECIFIED"), tr, enroll.CodeControlRejected, true, 0},
		{"endless patience", refusal(codes.ResourceExhausted, controlv1.Reason_REASON_OVERLOADED, retryIn(1e6*time.Hour)), tr, enroll.CodeControlOverloaded, true, maxRetryAfter},
		{"no patience", refusal(codes.ResourceExhausted, controlv1.Reason_REASON_OVERLOADED, retryIn(-time.Hour)), tr, enroll.CodeControlOverloaded, true, 0},
		{"", code(codes.Canceled), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.Unknown), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.InvalidArgument), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.DeadlineExceeded), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.NotFound), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.AlreadyExists), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.PermissionDenied), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.ResourceExhausted), tr, enroll.CodeControlOverloaded, true, 0},
		{"", code(codes.FailedPrecondition), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.Aborted), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.OutOfRange), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.Unimplemented), tr, enroll.CodeControlRejected, true, 0},
		{"", code(codes.Internal), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.Unavailable), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.DataLoss), tr, enroll.CodeControlUnreachable, true, 0},
		{"", code(codes.Unauthenticated), tr, CodeIdentityRefused, true, 0},
		{"a code of tomorrow", code(codes.Code(99)), tr, enroll.CodeControlUnreachable, true, 0},
	}
}

// Every row of the table, over the wire, by a call about one request.
func TestEveryRefusal(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	rows := reasonRows()
	for _, r := range rows { // no reason of the contract is forgotten
		st, _ := status.FromError(r.err)
		got, _ := details(st)
		if _, ok := byReason[got]; !ok || got == 0 {
			t.Errorf("%v has no row", got)
		}
	}
	if want := len(controlv1.Reason_name) - 1; len(byReason) != want || len(rows) != want {
		t.Errorf("%d rows here, %d in the table, %d reasons in the contract", len(rows), len(byReason), want)
	}
	rows = append(rows, otherRows(t)...)
	for _, r := range rows {
		st, _ := status.FromError(r.err)
		got, _ := details(st)
		t.Run(fmt.Sprintf("%s %v %v", r.name, st.Code(), got), func(t *testing.T) {
			s.before = func(context.Context, string) error { return r.err }
			_, err := c.Submit(t.Context(), enroll.Submission{ID: "smime-1", CSR: []byte("csr")})
			e := wantError(t, err, r.kind, r.code)
			if e.RetryAfter != r.retry {
				t.Errorf("retry after %v, want %v", e.RetryAfter, r.retry)
			}
			if strings.Contains(e.Hint, "secret") || strings.Contains(e.Hint, "%") {
				t.Errorf("hint = %s", e.Hint)
			}
			if cs := c.Conditions(); (len(cs) == 1) != r.device {
				t.Errorf("conditions = %+v", cs)
			}
			s.before = nil
			if _, err := c.Sync(t.Context(), SyncInput{}); err != nil || len(c.Conditions()) != 0 {
				t.Errorf("afterwards: %v, %+v", err, c.Conditions())
			}
		})
	}
}

// Hints say what is wrong and what to do: two sentences at least.
func TestHintsSayWhatToDo(t *testing.T) {
	check := func(what string, r remedy) {
		if !strings.HasSuffix(r.hint, ".") || strings.Count(r.hint, ". ") < 1 {
			t.Errorf("%s: %q", what, r.hint)
		}
	}
	for k, r := range byReason {
		check(k.String(), r)
	}
	for k, r := range byCode {
		check(k.String(), r)
	}
	for k, r := range byStage {
		check(string(k), r)
		if strings.Count(r.hint, "%s") != 1 {
			t.Errorf("%s does not name the hop", k)
		}
	}
}

func TestBrokenOffByUs(t *testing.T) {
	s := newServer(t)
	c := joined(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	s.await = func(ctx context.Context, _ *controlv1.AwaitRequest) *controlv1.AwaitResponse {
		cancel()
		<-ctx.Done()
		return nil
	}
	_, err := c.Await(ctx, time.Minute, "1", nil)
	if !errors.Is(err, context.Canceled) || enroll.AsError(err).Kind != enroll.Transient {
		t.Errorf("error = %v", err)
	}
	if len(c.Conditions()) != 0 {
		t.Errorf("our own doing became a condition: %+v", c.Conditions())
	}
	if d := durationpb.New(maxHold).AsDuration(); d != time.Minute {
		t.Error(d)
	}
}
