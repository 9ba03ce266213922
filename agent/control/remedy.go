package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// What is wrong with the device as a whole, beside the codes of package enroll.
const (
	CodeUnconfigured    enroll.Code = "control-unconfigured"
	CodeUntrusted       enroll.Code = "control-untrusted"
	CodeProxyRefused    enroll.Code = "proxy-refused"
	CodeNotJoined       enroll.Code = "not-joined"
	CodeTokenRefused    enroll.Code = "join-token-refused" //nolint:gosec // the name of a fault
	CodeDevicePending   enroll.Code = "device-pending"
	CodeDeviceRefused   enroll.Code = "device-refused"
	CodeIdentityExpired enroll.Code = "identity-expired"
	CodeIdentityRefused enroll.Code = "identity-refused"
	CodeMachineCloned   enroll.Code = "machine-cloned"
	CodeSecretsFailed   enroll.Code = "secrets-failed"
	CodePolicyUnusable  enroll.Code = "policy-unusable"
)

// remedy is one row of the table: what an answer means and what to do about it.
// A fault of the device or of the way is transient for the enrollment: it heals
// by itself once the device is right again.
type remedy struct {
	kind enroll.Kind
	code enroll.Code
	// device: it is about the device and not about one request.
	device bool
	// rejoin: the identity is of no use any more; with a token, join anew.
	rejoin bool
	hint   string
}

const (
	askAdmin  = " Ask the administrator of central management."
	newToken  = " Give this machine a new join token."
	retryHint = " The agent tries again by itself."
)

// byReason has every reason of the contract but UNSPECIFIED.
var byReason = map[controlv1.Reason]remedy{
	controlv1.Reason_REASON_TOKEN_UNKNOWN:       {enroll.Transient, CodeTokenRefused, true, false, "Central management does not know the join token." + newToken},
	controlv1.Reason_REASON_TOKEN_EXPIRED:       {enroll.Transient, CodeTokenRefused, true, false, "The join token's life is over." + newToken},
	controlv1.Reason_REASON_TOKEN_USED_UP:       {enroll.Transient, CodeTokenRefused, true, false, "The join token has been used as often as it may be." + newToken},
	controlv1.Reason_REASON_TOKEN_REVOKED:       {enroll.Transient, CodeTokenRefused, true, false, "An administrator revoked the join token." + newToken},
	controlv1.Reason_REASON_DEVICE_PENDING:      {enroll.Transient, CodeDevicePending, true, false, "This machine waits to be admitted. An administrator must approve it in central management."},
	controlv1.Reason_REASON_DEVICE_REFUSED:      {enroll.Transient, CodeDeviceRefused, true, true, "This machine was removed or refused in central management. An administrator can admit it again there, or give it a new join token."},
	controlv1.Reason_REASON_IDENTITY_EXPIRED:    {enroll.Transient, CodeIdentityExpired, true, true, "This machine's identity ended too long ago. Give it a new join token."},
	controlv1.Reason_REASON_IDENTITY_REQUIRED:   {enroll.Transient, CodeIdentityRefused, true, true, "Central management does not take this machine's identity. Give it a new join token."},
	controlv1.Reason_REASON_CSR_INVALID:         {enroll.Final, enroll.CodeRequestRefused, false, false, "Central management cannot read the request." + askAdmin},
	controlv1.Reason_REASON_CSR_CHANGED:         {enroll.Final, enroll.CodeRequestRefused, false, false, "Central management has another request under this name." + askAdmin},
	controlv1.Reason_REASON_NOT_ASSIGNED:        {enroll.Final, enroll.CodeRequestRefused, false, false, "Policy does not give this mailbox to anybody on this machine." + askAdmin},
	controlv1.Reason_REASON_PROFILE_UNKNOWN:     {enroll.Transient, enroll.CodeControlRejected, false, false, "Central management does not know the profile that its own policy names." + askAdmin},
	controlv1.Reason_REASON_KEY_UNSUITABLE:      {enroll.Final, enroll.CodeRequestRefused, false, false, "The key is not of a kind that the profile allows." + askAdmin},
	controlv1.Reason_REASON_KEY_REUSED:          {enroll.Final, enroll.CodeRequestRefused, false, false, "The key already has a certificate of another request." + askAdmin},
	controlv1.Reason_REASON_REFERENCE_UNKNOWN:   {enroll.Final, enroll.CodeControlRejected, false, false, "Central management does not know the request any more." + askAdmin},
	controlv1.Reason_REASON_LINT_FAILED:         {enroll.Transient, enroll.CodeControlRejected, false, false, "The certificate failed central management's own checks before it was signed. The administrator must correct the profile."},
	controlv1.Reason_REASON_OVERLOADED:          {enroll.Transient, enroll.CodeControlOverloaded, true, false, "Central management has too much to do at the moment." + retryHint},
	controlv1.Reason_REASON_MALFORMED:           {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management cannot make sense of this agent's message. Check that both are of matching versions."},
	controlv1.Reason_REASON_UNAVAILABLE:         {enroll.Transient, enroll.CodeControlUnreachable, true, false, "Central management cannot work at the moment." + retryHint},
	controlv1.Reason_REASON_PUBLICATION_INVALID: {enroll.Final, enroll.CodeControlRejected, false, false, "Central management does not take what this machine signed for the directory." + askAdmin},
	controlv1.Reason_REASON_CODE_WRONG:          {enroll.Waiting, enroll.CodeChallengePending, false, false, "The code is not the one that was mailed last. Enter that of the newest mail."},
	controlv1.Reason_REASON_CODE_EXPIRED:        {enroll.Waiting, enroll.CodeChallengePending, false, false, "The code has expired. Another one is mailed; enter that."},
}

// byCode is for answers without a reason that we know: of a newer server, of
// something in between, or of gRPC itself.
var byCode = map[codes.Code]remedy{
	codes.Unavailable:        {enroll.Transient, enroll.CodeControlUnreachable, true, false, "The connection to central management broke." + retryHint},
	codes.DeadlineExceeded:   {enroll.Transient, enroll.CodeControlUnreachable, true, false, "Central management did not answer in time." + retryHint},
	codes.ResourceExhausted:  {enroll.Transient, enroll.CodeControlOverloaded, true, false, "Central management has too much to do at the moment." + retryHint},
	codes.Unauthenticated:    {enroll.Transient, CodeIdentityRefused, true, true, "Central management does not take this machine's identity. Give it a new join token."},
	codes.PermissionDenied:   {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management does not allow this." + askAdmin},
	codes.InvalidArgument:    {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management cannot make sense of this agent's message. Check that both are of matching versions."},
	codes.FailedPrecondition: {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management does not do this in its present state." + askAdmin},
	codes.NotFound:           {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management does not know what it was asked for." + askAdmin},
	codes.AlreadyExists:      {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management has another record under this name." + askAdmin},
	codes.OutOfRange:         {enroll.Transient, enroll.CodeControlRejected, true, false, "Central management cannot make sense of this agent's message. Check that both are of matching versions."},
	codes.Unimplemented:      {enroll.Transient, enroll.CodeControlRejected, true, false, "What answers at the address of central management does not know this call. Check the address and the server's version."},
	codes.Aborted:            {enroll.Transient, enroll.CodeControlUnreachable, true, false, "Central management broke the call off." + retryHint},
	codes.Canceled:           {enroll.Transient, enroll.CodeControlUnreachable, true, false, "The connection to central management was closed." + retryHint},
	codes.Internal:           {enroll.Transient, enroll.CodeControlUnreachable, true, false, "Central management, or something on the way to it, has an internal fault." + retryHint},
	codes.DataLoss:           {enroll.Transient, enroll.CodeControlUnreachable, true, false, "Central management has lost data." + askAdmin},
	codes.Unknown:            {enroll.Transient, enroll.CodeControlUnreachable, true, false, "Central management failed for an unknown reason." + retryHint},
}

// byStage is for what fails before the first call. %s is the hop.
var byStage = map[stage]remedy{
	stageProxySetting: {enroll.Transient, CodeProxyRefused, true, false, "The proxy for %s cannot be told from the system's settings. Correct HTTPS_PROXY or the agent's proxy setting."},
	stageName:         {enroll.Transient, enroll.CodeControlUnreachable, true, false, "The name of %s cannot be resolved. Check the address and this machine's DNS."},
	stageConnect:      {enroll.Transient, enroll.CodeControlUnreachable, true, false, "No connection to %s. Check the network, the firewall and the address."},
	stageProxy:        {enroll.Transient, CodeProxyRefused, true, false, "The proxy %s does not let the agent through. Allow the way to central management there, and check user name and password of the agent's proxy setting."},
	stageTLS:          {enroll.Transient, enroll.CodeControlUnreachable, true, false, "No TLS connection to %s. Check that it is central management's address and that nothing in between breaks TLS 1.3."},
	stageTrust:        {enroll.Transient, CodeUntrusted, true, false, "The certificate of %s is not from the CA, or for the key, that the settings name. Exempt central management from TLS inspection, or correct the agent's anchor or pin."},
	stageHTTP2:        {enroll.Transient, enroll.CodeControlUnreachable, true, false, "%s does not speak HTTP/2. Check the address, and exempt central management from proxies that take HTTP/2 away."},
	stageIdentity:     {enroll.Transient, CodeIdentityRefused, true, true, "%s does not take this machine's certificate. Give this machine a new join token."},
}

// errAnswer is an answer that breaks the contract.
var errAnswer = errors.New("answer breaks the contract")

const reasonDomain = "smime-agent"

// errorOf is the one border from what went wrong to what to do.
func errorOf(err error) (*enroll.Error, remedy) {
	if e, ok := errors.AsType[*enroll.Error](err); ok {
		return e, remedy{kind: e.Kind, code: e.Code, hint: e.Hint}
	}
	if d, ok := errors.AsType[*dialError](err); ok {
		row := byStage[d.stage]
		row.hint = fmt.Sprintf(row.hint, d.hop)
		switch u, ok := errors.AsType[*untrustedError](err); {
		case ok && u.outOfTime():
			row.hint = fmt.Sprintf("The certificate of %s is not valid at this machine's time. Check the clock here, and the certificate there.", d.hop)
		case ok && u.leaf != nil:
			row.hint = fmt.Sprintf("%s shows a certificate issued by %q, which is not what the settings name. "+
				"Exempt central management from TLS inspection, or correct the agent's anchor or pin.", d.hop, clean(u.leaf.Issuer.String(), 100))
		case d.status != 0:
			row.hint = fmt.Sprintf("The proxy %s answered %d. Allow the way to central management there, and check user name and password of the agent's proxy setting.", d.hop, d.status)
		}
		return row.error(err, 0), row
	}
	if errors.Is(err, errAnswer) {
		row := remedy{enroll.Transient, enroll.CodeControlRejected, true, false, "Central management answered something that this agent cannot use. Check that both are of matching versions."}
		return row.error(err, 0), row
	}
	s, _ := status.FromError(err)
	if errors.Is(err, context.DeadlineExceeded) {
		s = status.New(codes.DeadlineExceeded, err.Error())
	}
	reason, retry := details(s)
	row, ok := byReason[reason]
	if !ok {
		row, ok = byCode[s.Code()]
	}
	if !ok {
		row = byCode[codes.Unknown]
	}
	// gRPC gives its own refusal of a large message the code of an overload.
	if reason == 0 && s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "message larger than max") {
		row = remedy{enroll.Transient, enroll.CodeControlRejected, true, false, "Central management answered more than this agent takes." + askAdmin}
	}
	return row.error(err, retry), row
}

func (r remedy) error(err error, retry time.Duration) *enroll.Error {
	return &enroll.Error{Kind: r.kind, Code: r.code, Hint: r.hint, RetryAfter: retry, Err: err}
}

// details reads reason and wish out of a status. The texts of a server are for
// the log only.
func details(s *status.Status) (controlv1.Reason, time.Duration) {
	var reason controlv1.Reason
	var retry time.Duration
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == reasonDomain {
				reason = controlv1.Reason(controlv1.Reason_value["REASON_"+d.GetReason()])
			}
		case *errdetails.RetryInfo:
			retry = between(d.GetRetryDelay().AsDuration(), 0, maxRetryAfter)
		}
	}
	return reason, retry
}

func hasReason(err error) bool {
	s, _ := status.FromError(err)
	reason, _ := details(s)
	return reason != controlv1.Reason_REASON_UNSPECIFIED
}

// reasonIs tells whether the server gave that reason.
func reasonIs(err error, want ...controlv1.Reason) bool {
	s, ok := status.FromError(errCause(err))
	if !ok {
		return false
	}
	reason, _ := details(s)
	return slices.Contains(want, reason)
}

// errCause gives what an *enroll.Error was made of.
func errCause(err error) error {
	if e, ok := errors.AsType[*enroll.Error](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}

func interrupted(err error) *enroll.Error {
	return &enroll.Error{
		Kind: enroll.Transient, Code: enroll.CodeControlUnreachable,
		Hint: "The call to central management was broken off here." + retryHint, Err: err,
	}
}
