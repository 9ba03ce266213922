package local

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
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

// kernel is the transport's credentials: no TLS, for the bytes never leave the
// kernel, but the kernel's word on who is at the other end, which [door] has
// asked for.
type kernel struct{}

func secure() credentials.CommonAuthInfo {
	return credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
}

// ServerHandshake passes on what the door knows.
func (kernel) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	in, ok := c.(*countedConn)
	if !ok {
		return nil, nil, errors.New("local: connection of another listener")
	}
	return in, authInfo{secure(), in.peer}, nil
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

// share is what a caller's connections and calls are counted in: his user's, but
// for the service's own process one of its own, so that nothing else which runs as
// the service's account can keep it from asking itself. The kernel's word on a
// process is one on this one, which is alive and so has the number alone; where
// Windows believes a client who gives a false one, he gains a second share of his
// own user's.
func share(p platform.Peer) string {
	if p.PID == os.Getpid() {
		return p.User + " itself"
	}
	return p.User
}

// door lets callers in. Whoever is beyond his share is turned away before
// anything is begun for him: the kernel's queue has some thousand places, and
// behind a flood all others wait for as long as it takes to empty.
type door struct {
	net.Listener
	peerOf  func(net.Conn) (platform.Peer, error)
	callers *callers
	log     *slog.Logger
}

// Accept gives the next connection that is let in.
func (d door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if in := d.admit(c); in != nil {
			return in, nil
		}
		_ = c.Close()
	}
}

// admit is nil for whom the kernel does not name, and for whom has too many.
func (d door) admit(c net.Conn) *countedConn {
	p, err := d.peerOf(c)
	if err == nil && p.User == "" {
		err = platform.ErrDenied
	}
	if err != nil {
		if d.callers.warn("") {
			d.log.Warn("caller is not known to the system", "error", err)
		}
		return nil
	}
	who := share(p)
	if !d.callers.connect(who) {
		if d.callers.warn(p.User) {
			d.log.Warn("too many connections", "user", p.User, "pid", p.PID)
		}
		return nil
	}
	return &countedConn{Conn: c, peer: p, leave: sync.OnceFunc(func() { d.callers.disconnect(who) })}
}

// countedConn gives its place back when it is closed, whoever closes it.
type countedConn struct {
	net.Conn
	peer  platform.Peer
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
