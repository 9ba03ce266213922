package server

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

// DecideDevice admits a device that waits or was removed, or removes one, with
// or without its certificates. What it removes it can admit again: the device's
// own certificate is still good for that, or for renewal within its grace.
func (a *admin) DecideDevice(ctx context.Context, req *controlv1.DecideDeviceRequest) (*controlv1.DecideDeviceResponse, error) {
	reason := req.GetRevokeReason()
	if reason != "" && (req.GetAdmit() || !ca.KnownReason(reason)) {
		return nil, status.Error(codes.InvalidArgument, "Only a removal revokes certificates, and for one of these reasons: "+reasonWords+".")
	}
	state := store.Removed
	if req.GetAdmit() {
		state = store.Admitted
	}
	var resp *controlv1.DecideDeviceResponse
	err := a.store.Update(ctx, func(tx store.Tx) error {
		resp = &controlv1.DecideDeviceResponse{}
		var device store.Device
		found, err := store.GetJSON(tx, store.Devices, []byte(req.GetId()), &device)
		if err != nil {
			return err
		}
		if !found {
			return noDevice(req.GetId())
		}
		device.State = state
		tellChanged(tx, device.ID)
		if err := roster.PutDevice(tx, device); err != nil {
			return err
		}
		if req.GetAdmit() {
			return nil
		}
		resp.Certificates, err = a.certificatesOf(tx, device.ID)
		if err != nil || reason == "" {
			return err
		}
		resp.Revoked = !slices.ContainsFunc(resp.GetCertificates(), elsewhere)
		return a.revokeEntries(tx, resp.GetCertificates(), reason)
	})
	if err != nil {
		return nil, err
	}
	if m := a.fleet.peek(req.GetId()); m != nil {
		m.mu.Lock()
		m.state = state
		m.mu.Unlock()
	}
	if reason != "" {
		a.desk.Poke()
	}
	a.fleet.wake(req.GetId())
	return resp, nil
}

// certificatesOf gives those of a device that could still be used: not ended and not revoked.
func (a *admin) certificatesOf(tx store.Tx, device string) ([]*controlv1.LedgerEntry, error) {
	var serials []ca.Serial
	tx.Range(store.Enrollments, []byte(device), nil, func(_, value []byte) bool {
		var serial ca.Serial
		copy(serial[:], value)
		serials = append(serials, serial)
		return true
	})
	var out []*controlv1.LedgerEntry
	seen := map[string]*ledger.View{}
	for _, serial := range serials {
		entry, err := ledger.Entry(tx, serial[:], tx.Get(store.Certificates, serial[:]), seen, a.now())
		if err != nil {
			return nil, err
		}
		if usable(entry) {
			entry.Certificate = nil
			out = append(out, entry)
		}
	}
	return out, nil
}

// usable: a mail partner would still accept it, be it replaced or not.
func usable(e *controlv1.LedgerEntry) bool {
	return e != nil && (e.GetStatus() == ledger.Valid || e.GetStatus() == ledger.Replaced)
}

// elsewhere says that another CA issued it, and has to revoke it.
func elsewhere(e *controlv1.LedgerEntry) bool { return e.GetAuthority() != "" }

// revokeEntries revokes what this server's own CA issued. The rest is for the
// caller to name: one of another CA keeps nobody else's certificate in force.
func (a *admin) revokeEntries(tx store.Tx, entries []*controlv1.LedgerEntry, reason string) error {
	for _, e := range entries {
		if elsewhere(e) {
			continue
		}
		serial, err := ca.ParseSerial(e.GetReference())
		if err != nil {
			return err
		}
		record, err := ledger.RequestOf(tx, serial)
		if err != nil {
			return err
		}
		if err := a.revoke(tx, serial, record, reason); err != nil {
			return err
		}
	}
	return nil
}
