package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/store"
)

// admin is the administrators' side of the server.
type admin struct {
	controlv1.UnimplementedAdminServiceServer
	*Server
}

// GetDevice gives all that is known of one device.
func (a *admin) GetDevice(_ context.Context, req *controlv1.GetDeviceRequest) (*controlv1.GetDeviceResponse, error) {
	resp := &controlv1.GetDeviceResponse{}
	err := a.store.View(func(tx store.Tx) error {
		var device store.Device
		found, err := store.GetJSON(tx, store.Devices, []byte(req.GetId()), &device)
		if err != nil {
			return err
		}
		if !found {
			return noDevice(req.GetId())
		}
		var report *controlv1.SyncRequest
		resp.Device, report = a.deviceIn(tx, device)
		resp.Users, resp.Credentials = report.GetUsers(), report.GetCredentials()
		tx.Range(store.Events, []byte(device.ID), nil, func(_, value []byte) bool {
			event := &controlv1.Event{}
			if proto.Unmarshal(value, event) == nil {
				resp.Events = append(resp.Events, event)
			}
			return true
		})
		return nil
	})
	return resp, err
}

func noDevice(id string) error {
	return status.Errorf(codes.NotFound, "There is no device %q; \"devices\" shows them.", id)
}

// Instruct queues an order for a device.
func (a *admin) Instruct(ctx context.Context, req *controlv1.InstructRequest) (*controlv1.InstructResponse, error) {
	order := req.GetOrder()
	if order.GetRenew() == nil && order.GetProve() == nil {
		return nil, status.Error(codes.InvalidArgument, "An order asks to renew or to prove; use Revoke to revoke.")
	}
	order.Id = newDeviceID(a.now())
	err := a.store.Update(ctx, func(tx store.Tx) error {
		var device store.Device
		found, err := store.GetJSON(tx, store.Devices, []byte(req.GetDeviceId()), &device)
		if err != nil {
			return err
		}
		if !found {
			return noDevice(req.GetDeviceId())
		}
		if id := order.GetRenew().GetEnrollmentId(); order.GetRenew() != nil {
			if _, record, err := ledger.Enrolled(tx, device.ID, id); err != nil || record == nil {
				return status.Errorf(codes.NotFound, "The device has no enrollment %q; \"device show\" lists them.", id)
			}
		}
		if order.GetProve() != nil {
			if err := orders.KeepProofs(tx, device.ID, order.GetId()); err != nil {
				return err
			}
		}
		tellChanged(tx, device.ID)
		return orders.Put(tx, device.ID, order, a.now())
	})
	if err != nil {
		return nil, err
	}
	a.fleet.wake(req.GetDeviceId())
	return &controlv1.InstructResponse{OrderId: order.GetId()}, nil
}
