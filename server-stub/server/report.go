package server

import (
	"bytes"
	"context"

	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

const (
	// maxEvents is what one call may bring, keptEvents what is kept of a device.
	maxEvents  = 256
	keptEvents = 512
	// maxEvent bounds one event, in octets.
	maxEvent   = 8 << 10
	maxEventID = 64
)

// Report files audit events. One that is there already is not filed again, and
// the oldest go when a device has more than keptEvents.
func (s *Server) Report(ctx context.Context, req *controlv1.ReportRequest) (*controlv1.ReportResponse, error) {
	if len(req.GetEvents()) > maxEvents {
		return nil, refuse(controlv1.Reason_REASON_MALFORMED, "A report has more than %d events.", maxEvents)
	}
	device := deviceOf(ctx)
	resp := &controlv1.ReportResponse{}
	records := make(map[string][]byte, len(req.GetEvents()))
	for _, event := range req.GetEvents() {
		data, err := proto.Marshal(event)
		if err != nil || len(data) > maxEvent || event.GetId() == "" || len(event.GetId()) > maxEventID {
			return nil, refuse(controlv1.Reason_REASON_MALFORMED, "An event has no usable ID, or more than %d bytes.", maxEvent)
		}
		records[event.GetId()] = data
		resp.Recorded = append(resp.Recorded, event.GetId())
	}
	if len(records) == 0 {
		return resp, nil
	}
	return resp, s.store.Update(ctx, func(tx store.Tx) error {
		for id, data := range records {
			key := append([]byte(device), id...)
			if tx.Get(store.Events, key) != nil {
				continue
			}
			if err := tx.Put(store.Events, key, data); err != nil {
				return err
			}
		}
		return trimEvents(tx, device)
	})
}

// trimEvents drops the oldest: their IDs are UUIDs version 7, which sort by age.
func trimEvents(tx store.Tx, device string) error {
	var keys [][]byte
	tx.Range(store.Events, []byte(device), nil, func(key, _ []byte) bool {
		keys = append(keys, bytes.Clone(key))
		return true
	})
	for len(keys) > keptEvents {
		if err := tx.Delete(store.Events, keys[0]); err != nil {
			return err
		}
		keys = keys[1:]
	}
	return nil
}
