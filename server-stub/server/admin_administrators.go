package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/administrator"
	"smime-agent/server-stub/ca"
)

// Administrator refuses who may not act as one, by a certificate whose key the
// handshake has proved.
func (s *Server) Administrator(ctx context.Context, id ca.Identity) error {
	if id.Role != ca.AdminRole {
		return refuse(controlv1.Reason_REASON_IDENTITY_REQUIRED, "This needs the client certificate of an administrator of this server.")
	}
	if s.now().After(id.Ends) {
		return errEnded()
	}
	err := s.administrators.Check(ctx, id)
	if errors.Is(err, administrator.ErrRevoked) {
		return refuse(controlv1.Reason_REASON_IDENTITY_REQUIRED, "The administrator's certificate was revoked; another one is made on the server, by \"admin create\".")
	}
	return err
}

// ListAdministrators gives the certificates that were used.
func (a *admin) ListAdministrators(context.Context, *controlv1.ListAdministratorsRequest) (*controlv1.ListAdministratorsResponse, error) {
	list, err := a.administrators.List()
	resp := &controlv1.ListAdministratorsResponse{}
	for _, one := range list {
		resp.Administrators = append(resp.Administrators, &controlv1.Administrator{
			Name: one.Name, Serial: one.Serial, Ends: setTime(one.Ends), Seen: setTime(one.Seen),
			Revoked: setTime(one.Revoked), RevokedBy: one.By, Reason: one.Reason,
		})
	}
	return resp, err
}

func setTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// RevokeAdministrator takes back certificates at once, also on connections that are open.
func (a *admin) RevokeAdministrator(ctx context.Context, req *controlv1.RevokeAdministratorRequest) (*controlv1.RevokeAdministratorResponse, error) {
	name, reason := strings.TrimSpace(req.GetName()), strings.TrimSpace(req.GetReason())
	if name == "" || len(name) > maxText || reason == "" || len(reason) > maxText {
		return nil, status.Error(codes.InvalidArgument, "Name the administrator, and give the reason in one sentence of at most 512 bytes.")
	}
	who, _ := callerOf(ctx)
	err := a.administrators.Revoke(ctx, name, req.GetSerial(), who.Identity.Name, reason)
	if errors.Is(err, administrator.ErrUnknown) {
		return nil, status.Errorf(codes.NotFound, "No certificate with this number was ever used under the name %q; \"admin list\" shows them.", name)
	}
	return &controlv1.RevokeAdministratorResponse{}, err
}
