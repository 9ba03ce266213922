package stub_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/metrics"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/stub"
)

// flood are callers from many addresses who mean no good, until stop.
type flood struct {
	server *stub.Server
	ctx    context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup
}

// loop calls from 127.0.0.N again and again; hold has the connection until it is closed.
func (f *flood) loop(n byte, hold func(net.Conn)) {
	f.work.Go(func() {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}}
		for f.ctx.Err() == nil {
			conn, err := from.DialContext(f.ctx, "tcp", f.server.Addr)
			if err != nil {
				time.Sleep(time.Millisecond) // turned away
				continue
			}
			release := context.AfterFunc(f.ctx, func() { _ = conn.Close() })
			hold(conn)
			release()
			_ = conn.Close()
		}
	})
}

// wait returns when the server closes the connection.
func wait(conn net.Conn) {
	for {
		if _, err := conn.Read(make([]byte, 1024)); err != nil {
			return
		}
	}
}

// silent says nothing, dribbling a byte of a ClientHello now and then.
func silent(conn net.Conn) { wait(conn) }

func dribbling(conn net.Conn) {
	hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}
	for i := 0; ; i = min(i+1, len(hello)-1) {
		if _, err := conn.Write(hello[i : i+1]); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// whole shakes hands without an identity, and stays.
func (f *flood) whole(conn net.Conn) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.server.Transport.Roots(), ServerName: "localhost", NextProtos: []string{"h2"}}
	if secure := tls.Client(conn, config); secure.HandshakeContext(f.ctx) == nil {
		wait(secure)
	}
}

// TestFlood: from four addresses, 24 at a time fill all places of the handshake with
// connections that say nothing, or a byte now and then; others shake hands and then
// stay. An administrator does not notice; a device enrolls and a new machine joins, each over
// a connection made meanwhile; and there are never more connections than may be.
func TestFlood(t *testing.T) {
	const connections, handshakes = 64, 16
	s := start(t, stub.Options{Settings: server.Settings{Connections: connections, Handshakes: handshakes}})
	text := token(t, s, &controlv1.CreateTokenRequest{MaxUses: 2})
	key := p256(t)
	joined, err := joinWith(t.Context(), s, &controlv1.JoinRequest{Token: text, Csr: csr(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	connect(t, s, joined.GetDeviceId(), key, joined.GetChain()).syncAs(t, alice())
	f := &flood{server: s}
	f.ctx, f.stop = context.WithCancel(t.Context())
	defer f.work.Wait()
	defer f.stop()
	for n := range byte(12) {
		f.loop(10+n%4, silent)
		f.loop(10+n%4, dribbling)
	}
	for n := range byte(8) {
		f.loop(20+n, f.whole)
	}
	f.work.Go(func() {
		for f.ctx.Err() == nil {
			facts, err := s.Server.Facts()
			if err != nil || facts.Connections > connections || facts.Handshakes > handshakes {
				t.Errorf("%d connections, %d in the handshake, %v", facts.Connections, facts.Handshakes, err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	full := func() bool { facts, _ := s.Server.Facts(); return facts.Handshakes == handshakes }
	for !full() {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Admin.ListDevices(t.Context(), &controlv1.ListDevicesRequest{}); err != nil {
		t.Errorf("an administrator gets %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := connect(t, s, joined.GetDeviceId(), key, joined.GetChain())
	if _, err := d.Submit(ctx, submission(enrollmentID(1), csr(t, p256(t))), grpc.WaitForReady(true)); err != nil {
		t.Errorf("a device gets %v", err)
	}
	conn, err := s.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = controlv1.NewControlServiceClient(conn).Join(ctx, &controlv1.JoinRequest{Token: text, Csr: csr(t, p256(t))}, grpc.WaitForReady(true))
	if err != nil {
		t.Errorf("a new machine gets %v", err)
	}
}

// TestStopInAFlood: connections in the middle of the handshake do not hold up the
// server's end: it closes them.
func TestStopInAFlood(t *testing.T) {
	s := start(t, stub.Options{})
	from := net.Dialer{}
	conn, err := from.DialContext(t.Context(), "tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for facts := (metrics.Facts{}); facts.Handshakes == 0; {
		if facts, err = s.Server.Facts(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Server.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("still connected")
	}
	if facts, err := s.Server.Facts(); err != nil || facts.Connections != 0 {
		t.Errorf("%d connections, %v", facts.Connections, err)
	}
}
