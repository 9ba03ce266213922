package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// stage is where on the way to the server something failed.
type stage string

const (
	stageProxySetting stage = "proxy setting"
	stageName         stage = "name"
	stageConnect      stage = "connect"
	stageProxy        stage = "proxy"
	stageTLS          stage = "TLS"
	stageTrust        stage = "trust"
	stageHTTP2        stage = "HTTP/2"
	stageIdentity     stage = "identity"
)

// dialError says how far we got.
type dialError struct {
	stage stage
	// hop is the host that refused, or did not answer.
	hop string
	// status is the proxy's HTTP status, 0 if it gave none.
	status int
	err    error
}

func (e *dialError) Error() string {
	if e.status != 0 {
		return fmt.Sprintf("the proxy %s answered %d", e.hop, e.status)
	}
	return fmt.Sprintf("%s (%s): %v", e.hop, e.stage, e.err)
}

func (e *dialError) Unwrap() error { return e.err }

// dialer makes the connection to the server, through a proxy where one is set.
type dialer struct {
	address string
	proxy   func(*url.URL) (*url.URL, error)
	auth    Proxy
	trust   *trust
}

// route is what is known of a connection, also of one that failed on the way.
type route struct {
	proxy  *url.URL // nil for a direct way
	remote string   // address of the first hop
	server *tls.ConnectionState
}

// dialTimeout bounds finding and greeting one hop.
const dialTimeout = 15 * time.Second

// open gives a connection over which HTTP/2 may be spoken to a server that is
// believed. The error is a *dialError.
func (d *dialer) open(ctx context.Context, cfg *tls.Config) (*tls.Conn, route, error) {
	var r route
	proxy, err := d.proxy(&url.URL{Scheme: "https", Host: d.address})
	if err != nil {
		return nil, r, &dialError{stage: stageProxySetting, hop: d.address, err: err}
	}
	first := d.address
	if r.proxy = proxy; proxy != nil {
		first = proxyAddress(proxy)
	}
	conn, err := d.connect(ctx, first)
	if err != nil {
		return nil, r, err
	}
	r.remote = conn.RemoteAddr().String()
	if proxy != nil {
		through, err := d.tunnel(ctx, conn, proxy)
		if err != nil {
			_ = conn.Close()
			return nil, r, err
		}
		conn = through
	}
	secure, err := d.secure(ctx, conn, cfg)
	if err != nil {
		_ = conn.Close()
		return nil, r, err
	}
	state := secure.ConnectionState()
	r.server = &state
	return secure, r, nil
}

func (d *dialer) connect(ctx context.Context, address string) (net.Conn, error) {
	// No TCP keepalive probes: a connection lives as long as an exchange.
	nd := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	conn, err := nd.DialContext(ctx, "tcp", address)
	if err == nil {
		return conn, nil
	}
	e := &dialError{stage: stageConnect, hop: address, err: err}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		e.stage = stageName
	}
	return nil, e
}

func (d *dialer) secure(ctx context.Context, conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		e := &dialError{stage: stageTLS, hop: d.address, err: err}
		if _, ok := errors.AsType[*untrustedError](err); ok {
			e.stage = stageTrust
		}
		return nil, e
	}
	if p := secure.ConnectionState().NegotiatedProtocol; p != "h2" {
		return nil, &dialError{stage: stageHTTP2, hop: d.address, err: fmt.Errorf("server chose protocol %q, want h2", p)}
	}
	return secure, nil
}
