package control

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	controlv1 "smime-agent/proto/control/v1"
)

// maxAnswer bounds one message of the server.
const maxAnswer = 4 << 20

// link is one connection. It is made before gRPC sees it and never made anew by
// gRPC: no resolver, no backoff and no keepalive of gRPC's own runs behind it.
type link struct {
	cc   *grpc.ClientConn
	stub controlv1.ControlServiceClient
	conn *watched
	// as names the identity that the connection was made with; "" for none.
	as    string
	users int
	// dead links are closed when the last call is over.
	dead bool
	idle *time.Timer
}

func (l *link) end() {
	l.dead = true
	if l.idle != nil {
		l.idle.Stop()
	}
	// gRPC closes the connection only if a call has taken it.
	_ = errors.Join(l.cc.Close(), l.conn.Close()) // nothing can be done about either
}

// watched remembers a TLS alert of the server about our certificate, which gRPC
// would only hand on as text.
type watched struct {
	*tls.Conn
	mu    sync.Mutex
	alert error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && aboutCertificate(op.Err) {
		w.mu.Lock()
		w.alert = err
		w.mu.Unlock()
	}
	return n, err
}

// aboutCertificate tells the alerts bad_certificate to unknown_ca, access_denied
// and certificate_required (RFC 8446 §6.2) from others. crypto/tls keeps their
// type to itself.
func aboutCertificate(alert error) bool {
	return strings.Contains(alert.Error(), "certificate") || strings.Contains(alert.Error(), "access denied")
}

// refusal is the server's TLS alert, nil if there was none. With TLS 1.3 a server
// refuses a client's certificate only after the client's handshake is over.
func (w *watched) refusal() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alert
}

// handedOver are the credentials of a connection whose handshake is over.
type handedOver struct {
	credentials.TransportCredentials
}

// ClientHandshake takes the connection as it is.
func (h handedOver) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	w, ok := conn.(*watched)
	if !ok {
		return nil, nil, errors.New("connection was not checked")
	}
	return w, credentials.TLSInfo{
		State:          w.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// Clone gives a copy.
func (h handedOver) Clone() credentials.TransportCredentials {
	return handedOver{h.TransportCredentials.Clone()}
}

var errLinkOver = errors.New("connection is over")

func newLink(address, agent, as string, conn *tls.Conn) (*link, error) {
	l := &link{as: as, conn: &watched{Conn: conn}}
	hand := make(chan net.Conn, 1)
	hand <- l.conn
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-hand:
				return c, nil
			default:
				return nil, errLinkOver
			}
		}),
		grpc.WithTransportCredentials(handedOver{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13})}),
		grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0), grpc.WithUserAgent(agent),
		grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(4<<10),
		grpc.WithMaxHeaderListSize(16<<10), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	)
	if err != nil {
		return nil, err
	}
	l.cc, l.stub = cc, controlv1.NewControlServiceClient(cc)
	return l, nil
}

// acquire gives the kept connection if it was made with that identity, or makes
// one. kept says which.
func (c *Client) acquire(ctx context.Context, id *identity) (l *link, kept bool, err error) {
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if l := c.current(id.name()); l != nil {
		return l, true, nil
	}
	conn, _, err := c.dial.open(ctx, c.trust.tlsConfig(id.certificate(), c.sessionCache()))
	if err != nil {
		return nil, false, err
	}
	l, err = newLink(c.cfg.Address, "smime-agent/"+clean(c.cfg.Facts.AgentVersion, 64), id.name(), conn)
	if err != nil {
		_ = conn.Close()
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		l.end()
		return nil, false, errLinkOver
	}
	c.link, l.users = l, 1
	return l, false, nil
}

// current takes the kept connection, or retires one of another identity, with
// whose sessions nothing can be resumed.
func (c *Client) current(as string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil && c.link.as == as && !c.link.dead {
		c.link.users++
		if c.link.idle != nil {
			c.link.idle.Stop()
		}
		return c.link
	}
	if c.link != nil && c.link.as != as {
		c.sessions = nil
	}
	c.retire(c.link)
	return nil
}

func (c *Client) sessionCache() tls.ClientSessionCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == nil {
		c.sessions = tls.NewLRUClientSessionCache(2)
	}
	return c.sessions
}

// release ends a call's use of l. The timer runs once, after the exchange.
func (c *Client) release(l *link, broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.users--
	if broken {
		c.retire(l)
	}
	if l.users > 0 {
		return
	}
	if l.dead {
		l.end()
		return
	}
	l.idle = time.AfterFunc(c.cfg.Idle, func() { c.closeIdle(l) })
}

func (c *Client) closeIdle(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.users == 0 {
		c.retire(l)
	}
}

// retire lets nobody else use l, and closes it as soon as nobody does.
// The caller holds c.mu.
func (c *Client) retire(l *link) {
	if l == nil {
		return
	}
	if c.link == l {
		c.link = nil
	}
	l.dead = true
	if l.users == 0 {
		l.end()
	}
}
