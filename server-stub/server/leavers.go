package server

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/coverage"
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
	err := a.eachEntry(func(tx store.Tx, e *controlv1.LedgerEntry, v *deviceView) bool {
		if !usable(e) {
			return true
		}
		if l := coverage.Leaver(force.policy, e, v.report); l != nil {
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
	resp.Revoked = true
	return resp, a.revokeLeavers(ctx, resp.GetLeavers(), reason)
}

func (a *admin) revokeLeavers(ctx context.Context, leavers []*controlv1.Leaver, reason string) error {
	// Also when a later part fails: what was revoked has to be on the list.
	defer a.crl.spoil()
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
	}
	return nil
}

var errStop = errors.New("enough was read")

// eachEntry goes through the ledger in parts, so that no transaction is held
// open for long, until visit says false. The entry has no certificate in it.
func (s *Server) eachEntry(visit func(tx store.Tx, e *controlv1.LedgerEntry, v *deviceView) bool) error {
	var from []byte
	for {
		seen, next := 0, []byte(nil)
		views := map[string]*deviceView{}
		err := s.store.View(func(tx store.Tx) error {
			var failed error
			tx.Range(store.Certificates, nil, from, func(key, value []byte) bool {
				if seen == ledgerPart {
					next = append([]byte(nil), key...)
					return false
				}
				seen++
				var entry *controlv1.LedgerEntry
				if entry, failed = s.ledgerEntry(tx, key, value, views); failed != nil {
					return false
				}
				if entry == nil {
					return true
				}
				entry.Certificate = nil
				if !visit(tx, entry, view(tx, entry.GetDeviceId(), views)) {
					failed = errStop
				}
				return failed == nil
			})
			return failed
		})
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil || next == nil {
			return err
		}
		from = next
	}
}

// ledgerPart is how many certificates one transaction reads.
const ledgerPart = 2000
