package local

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"google.golang.org/grpc"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

const (
	// callLimit bounds a call that waits for somebody else.
	callLimit = 90 * time.Second
	// watchPause is the shortest time between two reports on a watch, so that a
	// burst of changes becomes one.
	watchPause = 200 * time.Millisecond
	// watchTick looks again without a change: some conditions show by age alone.
	watchTick = time.Minute
	// targetLimit is the longest target, in bytes: a mailbox has at most 254
	// (RFC 5321 §4.5.3.1.3 less the angle brackets).
	targetLimit = 320
)

// seen gives the caller with what he may see.
func (s *service) seen(ctx context.Context) (platform.Peer, status.Report, error) {
	p, ok := caller(ctx)
	if !ok {
		return p, status.Report{}, &Error{Reason: ReasonDenied}
	}
	r, err := s.agent.Report(ctx)
	if err != nil {
		return p, status.Report{}, err
	}
	return p, view(p, r), nil
}

func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the report: %w", err)
	}
	return raw, nil
}

// Status answers with the report.
func (s *service) Status(ctx context.Context, _ *localv1.StatusRequest) (*localv1.StatusResponse, error) {
	_, r, err := s.seen(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := encode(r)
	return &localv1.StatusResponse{Report: raw}, err
}

// Watch sends the report now and whenever what the caller sees of it changes.
func (s *service) Watch(_ *localv1.WatchRequest, stream grpc.ServerStreamingServer[localv1.WatchResponse]) error {
	ctx := stream.Context()
	changes := s.agent.Changes(ctx)
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	var last status.Report
	for {
		_, r, err := s.seen(ctx)
		if err != nil {
			return err
		}
		if !equal(last, r) {
			last = r
			raw, err := encode(r)
			if err != nil {
				return err
			}
			if err := stream.Send(&localv1.WatchResponse{Report: raw}); err != nil {
				return err
			}
		}
		if !pause(ctx, watchPause) {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changes:
			if !ok {
				return ctx.Err()
			}
		case <-tick.C:
		}
	}
}

// equal compares reports but for their moment.
func equal(a, b status.Report) bool {
	a.At = b.At
	return reflect.DeepEqual(a, b)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// move resolves a target and does something to what it means.
func (s *service) move(ctx context.Context, target string, fits func(status.Credential) bool,
	do func(context.Context, platform.Peer, []enroll.ID) error,
) ([]string, error) {
	if len(target) > targetLimit {
		return nil, &Error{Reason: ReasonInvalid}
	}
	p, r, err := s.seen(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := resolve(p, r, target, fits)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := do(ctx, p, ids); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, string(id))
	}
	return names, nil
}

// Decide gives the person's verdict.
func (s *service) Decide(ctx context.Context, r *localv1.DecideRequest) (*localv1.DecideResponse, error) {
	v := enroll.Verdict(r.GetVerdict())
	switch v {
	case enroll.Approve, enroll.Later, enroll.Decline:
	default:
		return nil, &Error{Reason: ReasonInvalid}
	}
	ids, err := s.move(ctx, r.GetTarget(), decidable, func(ctx context.Context, by platform.Peer, ids []enroll.ID) error {
		return s.agent.Decide(ctx, by, ids, v)
	})
	return &localv1.DecideResponse{Enrollments: ids}, err
}

// Renew asks for new certificates.
func (s *service) Renew(ctx context.Context, r *localv1.RenewRequest) (*localv1.RenewResponse, error) {
	ids, err := s.move(ctx, r.GetTarget(), renewable, s.agent.Renew)
	return &localv1.RenewResponse{Enrollments: ids}, err
}

// codeLimit is the longest code that is handed on, in bytes.
const codeLimit = 64

// Confirm hands in a code that was mailed to a mailbox.
func (s *service) Confirm(ctx context.Context, r *localv1.ConfirmRequest) (*localv1.ConfirmResponse, error) {
	if r.GetCode() == "" || len(r.GetCode()) > codeLimit {
		return nil, &Error{Reason: ReasonInvalid}
	}
	ids, err := s.move(ctx, r.GetTarget(), challenged, func(ctx context.Context, by platform.Peer, ids []enroll.ID) error {
		return s.agent.Confirm(ctx, by, ids, r.GetCode())
	})
	return &localv1.ConfirmResponse{Enrollments: ids}, err
}

// Prove proves what the target means.
func (s *service) Prove(ctx context.Context, r *localv1.ProveRequest) (*localv1.ProveResponse, error) {
	ids, err := s.move(ctx, r.GetTarget(), provable, s.agent.Prove)
	return &localv1.ProveResponse{Enrollments: ids}, err
}

// Sync asks central management now.
func (s *service) Sync(ctx context.Context, _ *localv1.SyncRequest) (*localv1.SyncResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return &localv1.SyncResponse{}, s.agent.Sync(ctx)
}

// Diagnose runs the service's own checks.
func (s *service) Diagnose(ctx context.Context, _ *localv1.DiagnoseRequest) (*localv1.DiagnoseResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	checks, err := s.agent.Diagnose(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := encode(checks)
	return &localv1.DiagnoseResponse{Report: raw}, err
}

// Settings gives the settings in force, masked as is right for the caller.
func (s *service) Settings(ctx context.Context, _ *localv1.SettingsRequest) (*localv1.SettingsResponse, error) {
	p, ok := caller(ctx)
	if !ok {
		return nil, &Error{Reason: ReasonDenied}
	}
	settings, err := s.agent.Settings(ctx)
	if err != nil {
		return nil, err
	}
	masked := status.Settings{Settings: make([]status.Setting, 0, len(settings.Settings))}
	for _, one := range settings.Settings {
		masked.Settings = append(masked.Settings, one.Masked(p.Admin))
	}
	raw, err := encode(masked)
	return &localv1.SettingsResponse{Report: raw}, err
}
