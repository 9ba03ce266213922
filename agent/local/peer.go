package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"smime-agent/platform"
)

// authInfo carries the kernel's word on the caller through gRPC.
type authInfo struct {
	credentials.CommonAuthInfo
	peer platform.Peer
}

func (authInfo) AuthType() string { return "local" }

// errTooMany closes a connection beyond the user's share.
var errTooMany = errors.New("too many connections of this user")

// kernel is the transport's credentials: no TLS, for the bytes never leave the
// kernel, but the kernel's word on who is at the other end.
type kernel struct {
	peerOf  func(net.Conn) (platform.Peer, error)
	callers *callers
}

func secure() credentials.CommonAuthInfo {
	return credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
}

// ServerHandshake runs in the connection's own goroutine, under its deadline, so
// that a caller whom the kernel is slow to name holds up nobody else.
func (k kernel) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	counted, ok := c.(*countedConn)
	if !ok {
		return nil, nil, errors.New("local: connection of another listener")
	}
	p, err := k.peerOf(counted.Conn)
	if err != nil {
		return nil, nil, fmt.Errorf("ask who calls: %w", err)
	}
	if p.User == "" {
		return nil, nil, fmt.Errorf("ask who calls: %w", platform.ErrDenied)
	}
	if !counted.admit(k.callers, p.User) {
		return nil, nil, errTooMany
	}
	return counted, authInfo{secure(), p}, nil
}

// ClientHandshake trusts the connection: [platform.Dial] has looked at the
// service's end.
func (kernel) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, authInfo{CommonAuthInfo: secure()}, nil
}

func (kernel) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}
func (k kernel) Clone() credentials.TransportCredentials { return k }
func (kernel) OverrideServerName(string) error           { return nil }

// caller finds the kernel's word in a call's context.
func caller(ctx context.Context) (platform.Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return platform.Peer{}, false
	}
	info, ok := p.AuthInfo.(authInfo)
	return info.peer, ok && info.peer.User != ""
}

// countedListener gives connections that can be counted by user.
type countedListener struct{ net.Listener }

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: c}, nil
}

// countedConn gives its place back when it is closed, whoever closes it.
type countedConn struct {
	net.Conn
	mu      sync.Mutex
	closed  bool
	release func()
}

func (c *countedConn) admit(all *callers, user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.release != nil || !all.connect(user) {
		return false
	}
	c.release = func() { all.disconnect(user) }
	return true
}

func (c *countedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	release := c.release
	c.release = nil
	c.mu.Unlock()
	if release != nil {
		release()
	}
	return c.Conn.Close()
}
