package server

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/coverage"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/store"
)

const (
	// maxLeavers bounds what one answer lists.
	maxLeavers = 5000
	// revokeChunk bounds what one transaction revokes.
	revokeChunk = 200
)

// ListLeavers compares the certificates in force with the people in force: an
// address that is no longer active has to be revoked within five days (BR
// 4.9.1.1). It revokes only when a reason is named, and only as many as the
// caller has seen.
func (a *admin) ListLeavers(ctx context.Context, req *controlv1.ListLeaversRequest) (*controlv1.ListLeaversResponse, error) {
	reason := req.GetRevokeReason()
	if reason != "" && !ca.KnownReason(reason) {
		return nil, status.Errorf(codes.InvalidArgument, "%q is no reason; use one of these: %s.", reason, reasonWords)
	}
	force := a.current.Load()
	if force == nil {
		return nil, status.Error(codes.FailedPrecondition, "No policy is in force, so nobody can be said to have left; apply one.")
	}
	resp := &controlv1.ListLeaversResponse{}
	err := ledger.Each(a.store, a.now(), func(tx store.Tx, e *controlv1.LedgerEntry, v *ledger.View) bool {
		if !usable(e) {
			return true
		}
		if l := coverage.Leaver(force.policy, e, v.Report); l != nil {
			resp.Leavers = append(resp.Leavers, l)
		}
		return len(resp.GetLeavers()) < maxLeavers
	})
	if err != nil || reason == "" {
		return resp, err
	}
	if n := len(resp.GetLeavers()); n != int(req.GetExpected()) {
		return nil, status.Errorf(codes.FailedPrecondition,
			"There are %d certificates of leavers, and you named %d; list them again. Nothing was revoked.", n, req.GetExpected())
	}
	resp.Revoked = !slices.ContainsFunc(resp.GetLeavers(), func(l *controlv1.Leaver) bool { return elsewhere(l.GetEntry()) })
	return resp, a.revokeLeavers(ctx, resp.GetLeavers(), reason)
}

func (a *admin) revokeLeavers(ctx context.Context, leavers []*controlv1.Leaver, reason string) error {
	for part := range slices.Chunk(leavers, revokeChunk) {
		entries := make([]*controlv1.LedgerEntry, 0, len(part))
		for _, l := range part {
			entries = append(entries, l.GetEntry())
		}
		if err := a.store.Update(ctx, func(tx store.Tx) error { return a.revokeEntries(tx, entries, reason) }); err != nil {
			return err
		}
		for _, e := range entries {
			a.fleet.wake(e.GetDeviceId())
		}
		a.desk.Poke()
	}
	return nil
}
