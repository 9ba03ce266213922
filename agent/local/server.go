package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

// Server answers the local API.
type Server struct {
	Agent Agent
	// Sessions keeps the sessions that helpers lend; the service shares it with
	// the engine.
	Sessions *Sessions
	Limits   Limits
	// PeerOf is [platform.PeerOf] if nil.
	PeerOf func(net.Conn) (platform.Peer, error)
	// AccountOf is [platform.AccountOf] if nil.
	AccountOf func(user string) string
	// Log is [slog.Default] if nil, Now [time.Now].
	Log *slog.Logger
	Now func() time.Time
}

// reportLimit bounds what the service sends, in bytes: a report of some ten
// thousand credentials. Callers' messages have [Limits.Frame].
const reportLimit = 16 << 20

// headerLimit bounds the headers of a call, in bytes.
const headerLimit = 16 << 10

// Serve answers at the listener until ctx ends, and closes the listener. It
// returns when every call has ended; then every session has been detached.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	api := s.service()
	g := grpc.NewServer(api.options()...)
	localv1.RegisterAgentServiceServer(g, api)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(door{Listener: l, peerOf: s.peerOf(), callers: api.callers, log: api.log})
	g.Stop()
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve the local API: %w", err)
}

func (s *Server) peerOf() func(net.Conn) (platform.Peer, error) {
	if s.PeerOf == nil {
		return platform.PeerOf
	}
	return s.PeerOf
}

func (s *Server) service() *service {
	api := &service{agent: s.Agent, sessions: s.Sessions, accountOf: s.AccountOf, log: s.Log, now: s.Now, limits: s.Limits.orDefaults()}
	if api.accountOf == nil {
		api.accountOf = platform.AccountOf
	}
	if api.sessions == nil {
		api.sessions = &Sessions{}
	}
	if api.log == nil {
		api.log = slog.Default()
	}
	if api.now == nil {
		api.now = time.Now
	}
	api.callers = newCallers(api.limits, api.now)
	return api
}

// service holds what the handlers need.
type service struct {
	localv1.UnimplementedAgentServiceServer
	agent     Agent
	sessions  *Sessions
	accountOf func(user string) string
	callers   *callers
	limits    Limits
	log       *slog.Logger
	now       func() time.Time
}

func (s *service) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(kernel{}),
		grpc.ConnectionTimeout(s.limits.Handshake),
		grpc.MaxConcurrentStreams(s.limits.Streams),
		grpc.MaxRecvMsgSize(s.limits.Frame),
		grpc.MaxSendMsgSize(reportLimit),
		grpc.MaxHeaderListSize(headerLimit),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: s.limits.Idle}),
		// A ping a minute is more than anybody needs on a local socket.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute}),
		grpc.InTapHandle(s.tap),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.WaitForHandlers(true),
	}
}

// tap judges a call by its headers, before anything of its body is read.
func (s *service) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	p, ok := caller(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no caller")
	}
	if _, ok := rules[info.FullMethodName]; !ok {
		return nil, status.Error(codes.Unimplemented, "no such method")
	}
	if !s.callers.allow(share(p)) {
		return nil, status.Error(codes.ResourceExhausted, "too many calls")
	}
	return ctx, nil
}

// enter takes a place for a call, after judging it again: the tap is an
// economy, this is the guard.
func (s *service) enter(ctx context.Context, method string) (done func(), err error) {
	p, ok := caller(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no caller")
	}
	if _, ok := rules[method]; !ok {
		return nil, status.Error(codes.Unimplemented, "no such method")
	}
	done, ok = s.callers.call(share(p))
	if !ok {
		err, _ := toStatus(&Error{Reason: ReasonTooMany})
		return nil, err
	}
	return done, nil
}

func (s *service) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	done, err := s.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer done()
	defer s.settle(ctx, info.FullMethod, &err)
	return next(ctx, req)
}

func (s *service) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	done, err := s.enter(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer done()
	defer s.settle(ss.Context(), info.FullMethod, &err)
	return next(srv, ss)
}

// settle is where the errors of a call stop: what the caller may not see is
// logged here, and a panic becomes an error.
func (s *service) settle(ctx context.Context, method string, err *error) {
	p, _ := caller(ctx)
	if broken := recover(); broken != nil {
		s.log.Error("local call broke", "method", method, "user", p.User, "panic", fmt.Sprint(broken), "stack", string(debug.Stack()))
		*err, _ = toStatus(&Error{Reason: ReasonInternal})
		return
	}
	if *err == nil {
		return
	}
	// One of central management's may lie within an error of ours; its words are not for here.
	_, ours := errors.AsType[*Error](*err)
	_, hinted := errors.AsType[*enroll.Error](*err)
	if _, ok := status.FromError(*err); ok && !ours && !hinted {
		return
	}
	sent, internal := toStatus(*err)
	if internal {
		s.log.Warn("local call did not work", "method", method, "user", p.User, "error", *err)
	}
	*err = sent
}
