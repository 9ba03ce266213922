// Package gate finds out who calls, once per connection.
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
}

// ServerHandshake runs TLS and finds out who calls.
func (i identifying) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := i.TransportCredentials.ServerHandshake(raw)
	if err != nil {
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
	return conn, who, nil
}

// Clone copies the credentials, as [credentials.TransportCredentials] asks.
func (i identifying) Clone() credentials.TransportCredentials {
	return identifying{TransportCredentials: i.TransportCredentials.Clone(), transport: i.transport}
}

// New wraps TLS.
func New(tls credentials.TransportCredentials, transport *ca.Transport) credentials.TransportCredentials {
	return identifying{TransportCredentials: tls, transport: transport}
}
