package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/audit"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/gate"
	"smime-agent/server-stub/refusal"
	"smime-agent/server-stub/store"
)

// The bounds of a connection. Small buffers save a fifth of the memory of each.
const (
	maxMessage    = 256 << 10
	maxHeaders    = 8 << 10
	maxStreams    = 64
	writeBuffer   = 4 << 10
	streamWorkers = 64
	maxIdle       = 10 * time.Minute
)

// GRPC makes the gRPC server with both services. certificate is asked at each
// handshake, so that the server's certificate can change while it runs.
func (s *Server) GRPC(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *grpc.Server {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert,
		ClientCAs: s.transport.Roots(), GetCertificate: certificate, Time: s.now,
	}
	g := grpc.NewServer(
		grpc.Creds(gate.New(credentials.NewTLS(config), s.transport, s.door)),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(writeBuffer),
		grpc.ConnectionTimeout(gate.HandshakeTime),
		// A call on a worker finds a stack that has grown already. A call for which
		// none is free gets a goroutine of its own, so held calls hold nobody up.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: maxIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	controlv1.RegisterControlServiceServer(g, s)
	controlv1.RegisterAdminServiceServer(g, &admin{Server: s})
	return g
}

// unary is the one place where callers are checked and errors end.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method, begin := path.Base(info.FullMethod), s.now()
	resp, err := s.answer(ctx, req, info.FullMethod, method, handle)
	s.observe.Call(method, status.Code(err).String(), s.now().Sub(begin))
	if err != nil {
		resp = nil
	}
	s.note(ctx, method, req, resp, err)
	return resp, err
}

func (s *Server) answer(ctx context.Context, req any, fullMethod, method string, handle grpc.UnaryHandler) (any, error) {
	if bounded(fullMethod) {
		defer s.calls.Add(-1)
		if s.calls.Add(1) > int64(s.settings.Calls) {
			return nil, s.finish(method, errCrowded)
		}
	}
	if s.fault != nil {
		if err := s.fault(method); err != nil {
			return nil, faultStatus(err)
		}
	}
	ctx, err := s.authorize(ctx, fullMethod, method)
	if err != nil {
		return nil, s.finish(method, err)
	}
	resp, err := handle(ctx, req)
	if err != nil {
		return nil, s.finish(method, err)
	}
	if s.after != nil {
		if err := s.after(method); err != nil {
			return nil, faultStatus(err)
		}
	}
	return resp, nil
}

// errCrowded: as many calls are under way as may be.
var errCrowded = fmt.Errorf("too many calls at once: %w", store.ErrOverloaded)

// bounded says that [Settings.Calls] counts the method. A call that is held open
// costs its connection little more than it costs already; and administrators, who
// are few, have to see what is going on just then.
func bounded(fullMethod string) bool {
	return fullMethod != controlv1.ControlService_Await_FullMethodName && !strings.HasPrefix(fullMethod, adminService)
}

// note writes the audit line of a call that changes something, or was to.
func (s *Server) note(ctx context.Context, method string, req, resp any, err error) {
	fields, ok := audit.Fields(req, resp)
	if !ok {
		return
	}
	if got, submitted := resp.(*controlv1.SubmitResponse); submitted {
		s.observe.Submission(audit.Outcome(got.GetOutcome()))
	}
	who, address := callerOf(ctx)
	if now := s.now(); err != nil && !who.Known {
		s.noteStrangers(s.strangers.Due(now))
		if !s.strangers.Refused(gate.SourceOf(address), now) {
			return
		}
	}
	line := auditedBy(ctx, err)
	if err != nil {
		line = append(line, "refusal", status.Convert(err).Message())
	}
	s.audit.Info(method, append(line, fields...)...) //nolint:sloglint // the method's name is the message
}

// auditedBy begins an audit line: how the call ended, and whose it was.
func auditedBy(ctx context.Context, err error) []any {
	who, address := callerOf(ctx)
	from := ""
	if address != nil {
		from = address.String()
	}
	return []any{"code", status.Code(err).String(), "role", string(who.Identity.Role), "by", who.Identity.Name, "from", from}
}

// noteCredentials writes what a report changed of what is believed of credentials.
func (s *Server) noteCredentials(ctx context.Context, lines [][]any) {
	for _, fields := range lines {
		s.audit.Info("CredentialChanged", append(auditedBy(ctx, nil), fields...)...)
	}
}

// noteStrangers writes how many refused calls of callers without an identity have no line.
func (s *Server) noteStrangers(counted []audit.Refusals) {
	for _, r := range counted {
		from := "elsewhere"
		if r.From.IsValid() {
			from = r.From.String()
		}
		s.audit.Info("RefusedStrangers", "from", from, "count", r.Count, "since", r.Since, "until", r.Until)
	}
}

// callerOf gives who calls and from where; nobody and nil where gRPC does not say.
func callerOf(ctx context.Context) (who gate.Caller, from net.Addr) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return who, nil
	}
	who, _ = p.AuthInfo.(gate.Caller)
	return who, p.Addr
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	method, begin := path.Base(info.FullMethod), s.now()
	_, err := s.authorize(stream.Context(), info.FullMethod, method)
	if err == nil {
		err = handle(srv, stream)
	}
	if err != nil {
		err = s.finish(method, err)
	}
	s.observe.Call(method, status.Code(err).String(), s.now().Sub(begin))
	if method == "Backup" {
		s.note(stream.Context(), method, &controlv1.BackupRequest{}, nil, err)
	}
	return err
}

func (s *Server) finish(method string, err error) error {
	out, internal := refusal.Status(err)
	if internal {
		s.log.Error("call failed", "method", method, "error", err)
	}
	return out
}

func faultStatus(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}

type deviceKey struct{}

// deviceOf gives the device that authorize found; only its methods ask.
func deviceOf(ctx context.Context) string {
	id, _ := ctx.Value(deviceKey{}).(string)
	return id
}

const adminService = "/control.v1.AdminService/"

// authorize decides by the certificate of the connection alone.
func (s *Server) authorize(ctx context.Context, fullMethod, method string) (context.Context, error) {
	if fullMethod == controlv1.ControlService_Join_FullMethodName {
		return ctx, s.refresh("")
	}
	who, _ := callerOf(ctx)
	role := ca.DeviceRole
	if strings.HasPrefix(fullMethod, adminService) {
		role = ca.AdminRole
	}
	if !who.Known || who.Identity.Role != role {
		return nil, refuse(controlv1.Reason_REASON_IDENTITY_REQUIRED,
			"%s needs the client certificate of %s of this server.", method, roleText(role))
	}
	if role == ca.AdminRole {
		if err := s.Administrator(ctx, who.Identity); err != nil {
			return nil, err
		}
		return ctx, s.refresh("")
	}
	if err := s.inTime(fullMethod, who.Identity.Ends); err != nil {
		return nil, err
	}
	if err := s.refresh(who.Identity.Name); err != nil {
		return nil, err
	}
	if err := s.admitted(who.Identity.Name); err != nil {
		return nil, err
	}
	return context.WithValue(ctx, deviceKey{}, who.Identity.Name), nil
}

func roleText(role ca.Role) string {
	if role == ca.AdminRole {
		return "an administrator"
	}
	return "a device"
}

// inTime lets an ended device certificate renew itself within the grace, and
// do nothing else.
func (s *Server) inTime(fullMethod string, ends time.Time) error {
	if fullMethod == controlv1.ControlService_RenewIdentity_FullMethodName {
		ends = ends.Add(s.settings.IdentityGrace)
	}
	if s.now().After(ends) {
		return errEnded()
	}
	return nil
}

func errEnded() error {
	return refuse(controlv1.Reason_REASON_IDENTITY_EXPIRED, "The client certificate has ended.")
}

// refuse makes an error with a reason of the contract.
func refuse(reason controlv1.Reason, text string, args ...any) error {
	return refusal.New(reason, text, args...)
}
