package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

// admin is the administrators' side of the server.
type admin struct {
	controlv1.UnimplementedAdminServiceServer
	*Server
}

const (
	maxTokenLife = 366 * 24 * time.Hour
	maxTokenUses = 1_000_000
	tokenPrefix  = "join-"
)

// CreateToken makes a join token of at least 128 random bits. Only its hash is kept.
func (a *admin) CreateToken(ctx context.Context, req *controlv1.CreateTokenRequest) (*controlv1.CreateTokenResponse, error) {
	life := a.settings.TokenLife
	if req.GetLife() != nil && req.GetLife().AsDuration() != 0 {
		life = req.GetLife().AsDuration()
	}
	if life < 0 || life > maxTokenLife || req.GetMaxUses() > maxTokenUses || len(req.GetLabel()) > maxText {
		return nil, status.Error(codes.InvalidArgument, "A token lives at most 366 days, has at most 1000000 uses and a label of at most 512 bytes.")
	}
	text := tokenPrefix + rand.Text()
	key := sha256.Sum256([]byte(text))
	token := store.Token{
		ID: hex.EncodeToString(key[:6]), Label: req.GetLabel(), MaxUses: max(req.GetMaxUses(), 1),
		Created: a.now(), Expires: a.now().Add(life), NeedsApproval: req.GetNeedsApproval(),
	}
	err := a.store.Update(ctx, func(tx store.Tx) error { return store.PutJSON(tx, store.Tokens, key[:], token) })
	if err != nil {
		return nil, err
	}
	return &controlv1.CreateTokenResponse{Token: text, Info: wireToken(token)}, nil
}

func wireToken(t store.Token) *controlv1.Token {
	return &controlv1.Token{
		Id: t.ID, Label: t.Label, MaxUses: t.MaxUses, Uses: t.Uses, Created: timestamppb.New(t.Created),
		Expires: timestamppb.New(t.Expires), Revoked: t.Revoked, NeedsApproval: t.NeedsApproval,
	}
}

// ListTokens lists all tokens, without their texts.
func (a *admin) ListTokens(context.Context, *controlv1.ListTokensRequest) (*controlv1.ListTokensResponse, error) {
	resp := &controlv1.ListTokensResponse{}
	err := a.store.View(func(tx store.Tx) error {
		return eachJSON(tx, store.Tokens, nil, func(_ []byte, token store.Token) bool {
			resp.Tokens = append(resp.Tokens, wireToken(token))
			return true
		})
	})
	return resp, err
}

// eachJSON goes through a bucket of JSON records.
func eachJSON[T any](tx store.Tx, bucket store.Bucket, from []byte, visit func(key []byte, record T) bool) error {
	var failed error
	tx.Range(bucket, nil, from, func(key, _ []byte) bool {
		var record T
		if _, err := store.GetJSON(tx, bucket, key, &record); err != nil {
			failed = err
			return false
		}
		return visit(key, record)
	})
	return failed
}

// RevokeToken ends a token at once; machines that joined with it stay.
func (a *admin) RevokeToken(ctx context.Context, req *controlv1.RevokeTokenRequest) (*controlv1.RevokeTokenResponse, error) {
	err := a.store.Update(ctx, func(tx store.Tx) error {
		var key []byte
		var found store.Token
		err := eachJSON(tx, store.Tokens, nil, func(k []byte, token store.Token) bool {
			if token.ID == req.GetId() {
				key, found = append([]byte(nil), k...), token
			}
			return key == nil
		})
		if err != nil {
			return err
		}
		if key == nil {
			return status.Errorf(codes.NotFound, "There is no token %q; \"token list\" shows them.", req.GetId())
		}
		found.Revoked = true
		return store.PutJSON(tx, store.Tokens, key, found)
	})
	return &controlv1.RevokeTokenResponse{}, err
}

const maxPage = 500

// ListDevices lists devices in the order in which they joined.
func (a *admin) ListDevices(_ context.Context, req *controlv1.ListDevicesRequest) (*controlv1.ListDevicesResponse, error) {
	size := int(min(req.GetPageSize(), maxPage))
	if size == 0 {
		size = maxPage
	}
	resp := &controlv1.ListDevicesResponse{}
	err := a.store.View(func(tx store.Tx) error {
		return eachJSON(tx, store.Devices, []byte(req.GetPageToken()), func(key []byte, d store.Device) bool {
			if len(resp.GetDevices()) == size {
				resp.NextPageToken = string(key)
				return false
			}
			report, _, err := decodeStatus(tx.Get(store.Statuses, key))
			if err != nil {
				report = &controlv1.SyncRequest{}
			}
			resp.Devices = append(resp.Devices, a.wireDevice(d, report))
			return true
		})
	})
	return resp, err
}

func (a *admin) wireDevice(d store.Device, report *controlv1.SyncRequest) *controlv1.Device {
	out := &controlv1.Device{
		Id: d.ID, State: d.State, Joined: timestamppb.New(d.Joined), IdentityEnds: timestamppb.New(d.IdentityEnds),
		Facts: &controlv1.DeviceFacts{
			Hostname: d.Hostname, Os: d.OS, OsVersion: d.OSVersion, AgentVersion: d.AgentVersion, MachineIdHash: d.MachineID,
		},
		Conditions:  report.GetConditions(),
		Credentials: uint32(len(report.GetCredentials())),
	}
	for _, c := range report.GetCredentials() {
		if c.GetProof().GetOk() {
			out.Proved++
		}
	}
	m, err := a.member(d.ID)
	if err != nil || m == nil {
		return out
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.last.IsZero() {
		out.LastContact = timestamppb.New(m.last)
	}
	out.PolicyRevision = m.revision
	return out
}

// GetDevice gives all that is known of one device.
func (a *admin) GetDevice(_ context.Context, req *controlv1.GetDeviceRequest) (*controlv1.GetDeviceResponse, error) {
	resp := &controlv1.GetDeviceResponse{}
	err := a.store.View(func(tx store.Tx) error {
		device, err := recordedDevice(tx, req.GetId())
		if err != nil {
			return err
		}
		report, _, err := decodeStatus(tx.Get(store.Statuses, []byte(device.ID)))
		if err != nil {
			return err
		}
		resp.Device, resp.Users, resp.Credentials = a.wireDevice(device, report), report.GetUsers(), report.GetCredentials()
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

// recordedDevice gives a device on record; it is for people, who may name one that is not.
func recordedDevice(tx store.Tx, id string) (store.Device, error) {
	var device store.Device
	found, err := store.GetJSON(tx, store.Devices, []byte(id), &device)
	if err == nil && !found {
		err = noDevice(id)
	}
	return device, err
}

// DecideDevice admits a device that waits, or removes one. A removed device
// stays removed: the machine joins anew with a new key.
func (a *admin) DecideDevice(ctx context.Context, req *controlv1.DecideDeviceRequest) (*controlv1.DecideDeviceResponse, error) {
	state := store.Removed
	if req.GetAdmit() {
		state = store.Admitted
	}
	err := a.store.Update(ctx, func(tx store.Tx) error {
		device, err := recordedDevice(tx, req.GetId())
		if err != nil {
			return err
		}
		if device.State == store.Removed && req.GetAdmit() {
			return status.Error(codes.FailedPrecondition, "The device was removed; let the machine join anew with a new token.")
		}
		device.State = state
		return store.PutJSON(tx, store.Devices, []byte(device.ID), device)
	})
	if err != nil {
		return nil, err
	}
	if m, err := a.member(req.GetId()); err == nil && m != nil {
		m.mu.Lock()
		m.state = state
		m.mu.Unlock()
	}
	a.fleet.wake(req.GetId())
	return &controlv1.DecideDeviceResponse{}, nil
}

// Instruct queues an order for a device.
func (a *admin) Instruct(ctx context.Context, req *controlv1.InstructRequest) (*controlv1.InstructResponse, error) {
	order := req.GetOrder()
	if order.GetRenew() == nil && order.GetProve() == nil {
		return nil, status.Error(codes.InvalidArgument, "An order asks to renew or to prove; use Revoke to revoke.")
	}
	order.Id = newDeviceID(a.now())
	err := a.store.Update(ctx, func(tx store.Tx) error {
		device, err := recordedDevice(tx, req.GetDeviceId())
		if err != nil {
			return err
		}
		if id := order.GetRenew().GetEnrollmentId(); order.GetRenew() != nil {
			if _, record, err := enrolled(tx, device.ID, id); err != nil || record == nil {
				return status.Errorf(codes.NotFound, "The device has no enrollment %q; \"device show\" lists them.", id)
			}
		}
		return putOrder(tx, device.ID, order, a.now())
	})
	if err != nil {
		return nil, err
	}
	a.fleet.wake(req.GetDeviceId())
	return &controlv1.InstructResponse{OrderId: order.GetId()}, nil
}

// putOrder files an order and takes those out whose time is over.
func putOrder(tx store.Tx, device string, order *controlv1.Order, now time.Time) error {
	if err := dropOld(tx, device, now); err != nil {
		return err
	}
	data, err := encodeOrder(order, now)
	if err != nil {
		return err
	}
	return tx.Put(store.Orders, append([]byte(device), order.GetId()...), data)
}

func dropOld(tx store.Tx, device string, now time.Time) error {
	var keys [][]byte
	tx.Range(store.Orders, []byte(device), nil, func(key, value []byte) bool {
		if _, queued, err := decodeOrder(value); err != nil || now.Sub(queued) >= orderLife {
			keys = append(keys, append([]byte(nil), key...))
		}
		return true
	})
	for _, key := range keys {
		if err := tx.Delete(store.Orders, key); err != nil {
			return err
		}
	}
	return nil
}
