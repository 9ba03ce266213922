package server

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/coverage"
	"smime-agent/server-stub/filter"
	"smime-agent/server-stub/store"
)

const (
	maxPage = 500
	// pageBytes ends a page early, well under what a gRPC client takes.
	pageBytes = 2 << 20
	// maxScan is how many devices one call looks through for a filter that few pass.
	maxScan = 20_000
)

// ListDevices lists devices in the order in which they joined.
func (a *admin) ListDevices(_ context.Context, req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	return a.Devices(req)
}

// Devices gives a page of the devices that pass the request's filters.
func (s *Server) Devices(req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	size := int(min(req.GetPageSize(), maxPage))
	if size == 0 {
		size = maxPage
	}
	resp := &controlv1.ListDevicesResponse{}
	seen, bytes, now := 0, 0, s.now()
	err := s.store.View(func(tx store.Tx) error {
		return store.EachJSON(tx, store.Devices, []byte(req.GetPageToken()), func(key []byte, d store.Device) bool {
			if len(resp.GetDevices()) == size || bytes > pageBytes || seen == maxScan {
				resp.NextPageToken = string(key)
				return false
			}
			seen++
			if req.GetState() != "" && d.State != req.GetState() {
				return true
			}
			device, report := s.deviceIn(tx, d)
			if filter.Device(req, device, report, coverage.LastHeard(device), now) {
				resp.Devices = append(resp.Devices, device)
				bytes += proto.Size(device)
			}
			return true
		})
	})
	return resp, err
}

// deviceIn reads what there is to say of a device. It reads the transaction it
// is given and never begins another: bbolt locks up where one goroutine nests
// them. Nor does it load the device into the memory of the fleet, which stays
// as small as the number of devices that call.
func (s *Server) deviceIn(tx store.Tx, d store.Device) (*controlv1.Device, *controlv1.SyncRequest) {
	report, last, err := decodeStatus(tx.Get(store.Statuses, []byte(d.ID)))
	if err != nil {
		report = &controlv1.SyncRequest{}
	}
	out := &controlv1.Device{
		Id: d.ID, State: d.State, Joined: timestamppb.New(d.Joined), IdentityEnds: timestamppb.New(d.IdentityEnds),
		Facts: &controlv1.DeviceFacts{
			Hostname: d.Hostname, Os: d.OS, OsVersion: d.OSVersion, AgentVersion: d.AgentVersion, MachineIdHash: d.MachineID,
		},
		Conditions:  report.GetConditions(),
		Credentials: uint32(len(report.GetCredentials())),
	}
	for _, user := range report.GetUsers() {
		out.Accounts = append(out.Accounts, user.GetAccount())
	}
	for _, c := range report.GetCredentials() {
		if c.GetProof().GetOk() {
			out.Proved++
		}
	}
	if m := s.fleet.peek(d.ID); m != nil {
		m.mu.Lock()
		last, out.PolicyRevision = m.last, m.revision
		if !m.next.IsZero() {
			out.NextContact = timestamppb.New(m.next)
		}
		m.mu.Unlock()
	}
	if !last.IsZero() {
		out.LastContact = timestamppb.New(last)
	}
	return out, report
}
