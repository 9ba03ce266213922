// Package gate finds out who calls, once per connection, and bounds what
// connections cost before that is known.
package gate

import (
	"net"

	"google.golang.org/grpc/credentials"

	"smime-agent/server-stub/ca"
)

// Caller is who is at the other end of a connection, found once per connection.
type Caller struct {
	credentials.TLSInfo
	// Identity is that of the certificate, where Known.
	Identity ca.Identity
	// Known is false without a client certificate, or with one that is not ours.
	Known bool
}

// AuthType names the kind of authentication, as [credentials.AuthInfo] asks.
func (Caller) AuthType() string { return "smime-agent" }

// identifying is TLS that looks at the client's certificate after the handshake,
// so that who may not enter hears a reason and not a broken connection.
type identifying struct {
	credentials.TransportCredentials
	transport *ca.Transport
	door      *Door
}

// ServerHandshake runs TLS and finds out who calls, where the door has a place.
func (i identifying) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	v, err := i.door.enter(raw)
	if err != nil {
		return nil, nil, err
	}
	conn, info, err := i.TransportCredentials.ServerHandshake(v)
	if err != nil {
		i.door.failed(v)
		return nil, nil, err
	}
	who := Caller{}
	if secured, ok := info.(credentials.TLSInfo); ok {
		who.TLSInfo = secured
		if certs := secured.State.PeerCertificates; len(certs) > 0 {
			identity, err := i.transport.Identify(certs[0])
			who.Identity, who.Known = identity, err == nil
		}
	}
	if err := i.door.admit(v, who.Known); err != nil {
		return nil, nil, err
	}
	return admitted{Conn: conn, v: v}, who, nil
}

// admitted is a connection that is through; closing it makes room for another.
type admitted struct {
	net.Conn
	v *visitor
}

// Close closes the connection.
func (a admitted) Close() error {
	a.v.door.leave(a.v)
	return a.Conn.Close()
}

// Clone copies the credentials, as [credentials.TransportCredentials] asks.
func (i identifying) Clone() credentials.TransportCredentials {
	i.TransportCredentials = i.TransportCredentials.Clone()
	return i
}

// New wraps TLS. Connections that were made with a copy of it share the door.
func New(tls credentials.TransportCredentials, transport *ca.Transport, door *Door) credentials.TransportCredentials {
	return identifying{TransportCredentials: tls, transport: transport, door: door}
}
