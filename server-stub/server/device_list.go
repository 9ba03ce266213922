package server

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/roster"
	"smime-agent/server-stub/store"
)

// ListDevices lists devices in the order in which they joined. The devices are
// handed to the caller as they are stored, in wire form: to the encoder they
// are fields that it need not know.
func (a *admin) ListDevices(_ context.Context, req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	words := []string{store.Admitted, store.Waiting, store.Removed}
	if word := req.GetState(); word != "" && !slices.Contains(words, word) {
		return nil, status.Errorf(codes.InvalidArgument, "%q is no state of a device; use one of these: %s.", word, strings.Join(words, ", "))
	}
	wire, next, err := a.page(req)
	resp := &controlv1.ListDevicesResponse{NextPageToken: next}
	resp.ProtoReflect().SetUnknown(wire)
	return resp, err
}

// Devices gives a page of the devices that pass the request's filters.
func (s *Server) Devices(req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	wire, next, err := s.page(req)
	if err != nil {
		return nil, err
	}
	resp := &controlv1.ListDevicesResponse{}
	err = proto.Unmarshal(wire, resp)
	resp.NextPageToken = next
	return resp, err
}

func (s *Server) page(req *controlv1.ListDevicesRequest) (wire []byte, next string, err error) {
	members, now := s.fleet.all(), s.now()
	err = s.store.View(func(tx store.Tx) error {
		wire, next = roster.Page(tx, req, now, func(id []byte) (roster.Contact, bool) {
			m := members[string(id)]
			if m == nil {
				return roster.Contact{}, false
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			return roster.Contact{Last: m.last, Next: m.next, Revision: m.revision}, true
		})
		return nil
	})
	return wire, next, err
}

// deviceIn reads what there is to say of a device. It reads the transaction it
// is given and never begins another: bbolt locks up where one goroutine nests
// them. Nor does it load the device into the memory of the fleet, which stays
// as small as the number of devices that call.
func (s *Server) deviceIn(tx store.Tx, d store.Device) (*controlv1.Device, *controlv1.SyncRequest) {
	report, last, err := ledger.DecodeStatus(tx.Get(store.Statuses, []byte(d.ID)))
	if err != nil {
		report = &controlv1.SyncRequest{}
	}
	out := roster.Describe(d, report)
	if m := s.fleet.peek(d.ID); m != nil {
		m.mu.Lock()
		last, out.PolicyRevision = later(m.last, last), m.revision
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
