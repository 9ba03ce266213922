package control

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-100 * 24 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}, nil)
	return a
}

// issue signs a certificate for pub, or for a new key, which it then gives.
func (a *authority) issue(t testing.TB, template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if pub == nil {
		pub = &key.PublicKey
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// serverCert is a certificate for 127.0.0.1 and localhost, with its CA.
func (a *authority) serverCert(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "central"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
	}
	if change != nil {
		change(template)
	}
	cert, key := a.issue(t, template, nil)
	return tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}
}

// server is a small central management over real TLS on the loopback. It keeps
// the promises of Join that the contract makes; everything else is scripted.
type server struct {
	controlv1.UnimplementedControlServiceServer
	t        *testing.T
	ca       *authority
	address  string
	listener *countingListener
	grpc     *grpc.Server

	mu       sync.Mutex
	cert     tls.Certificate
	devices  map[string]string // public key (DER) to device ID
	calls    map[string]int
	identity []string // common names of the client certificates, call by call
	skew     time.Duration
	life     time.Duration
	backdate time.Duration
	// before runs ahead of each call; its error is the answer.
	before func(ctx context.Context, method string) error
	// after runs when the call is done; its error takes the answer's place.
	after func(method string) error

	sync    func(*controlv1.SyncRequest) *controlv1.SyncResponse
	submit  func(*controlv1.SubmitRequest) *controlv1.SubmitResponse
	collect func(*controlv1.CollectRequest) *controlv1.CollectResponse
	await   func(context.Context, *controlv1.AwaitRequest) *controlv1.AwaitResponse
}

type countingListener struct {
	net.Listener
	accepted atomic.Int32
	open     sync.Map
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
		l.open.Store(c, true)
	}
	return c, err
}

// reset breaks all connections without a goodbye.
func (l *countingListener) reset() {
	l.open.Range(func(k, _ any) bool {
		l.open.Delete(k)
		if c, ok := k.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
			_ = c.Close()
		}
		return true
	})
}

const goodToken = "token-1"

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, ca: newAuthority(t, "Test CA"), devices: map[string]string{}, calls: map[string]int{}, life: 24 * time.Hour}
	s.cert = s.ca.serverCert(t, nil)
	s.listen("127.0.0.1:0")
	t.Cleanup(s.stop)
	return s
}

func (s *server) listen(address string) {
	s.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.listener = &countingListener{Listener: l}
	s.address = l.Addr().String()
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	s.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return &s.cert, nil
		},
	})), grpc.UnaryInterceptor(s.intercept), grpc.MaxSendMsgSize(64<<20), grpc.MaxRecvMsgSize(64<<20))
	controlv1.RegisterControlServiceServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(s.listener) }()
}

func (s *server) stop() { s.grpc.Stop() }

func (s *server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[len("/control.v1.ControlService/"):]
	who := ""
	if p, ok := peer.FromContext(ctx); ok {
		if certs := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates; len(certs) > 0 {
			who = certs[0].Subject.CommonName
		}
	}
	s.mu.Lock()
	s.calls[method]++
	s.identity = append(s.identity, who)
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, method); err != nil {
			return nil, err
		}
	}
	if method != "Join" && who == "" {
		return nil, refusal(codes.Unauthenticated, controlv1.Reason_REASON_IDENTITY_REQUIRED)
	}
	resp, err := h(ctx, req)
	if after != nil {
		if err := after(method); err != nil {
			return nil, err
		}
	}
	return resp, err
}

// script sets what runs ahead of each call, while calls may still be running.
func (s *server) script(before func(context.Context, string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *server) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *server) time() *timestamppb.Timestamp {
	return timestamppb.New(time.Now().Add(s.skew))
}

func (s *server) device(csrDER []byte, name string) ([][]byte, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil || csr.CheckSignature() != nil {
		return nil, refusal(codes.InvalidArgument, controlv1.Reason_REASON_CSR_INVALID)
	}
	from := time.Now().Add(-s.backdate)
	cert, _ := s.ca.issue(s.t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: from.Add(s.life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, csr.PublicKey)
	return [][]byte{cert.Raw, s.ca.cert.Raw}, nil
}

func (s *server) Join(_ context.Context, r *controlv1.JoinRequest) (*controlv1.JoinResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil {
		return nil, refusal(codes.InvalidArgument, controlv1.Reason_REASON_CSR_INVALID)
	}
	key := string(csr.RawSubjectPublicKeyInfo)
	id, ok := s.devices[key]
	switch {
	case !ok && r.GetToken() != goodToken:
		return nil, refusal(codes.PermissionDenied, controlv1.Reason_REASON_TOKEN_UNKNOWN)
	case !ok:
		id = "device-" + string(rune('0'+len(s.devices)))
		s.devices[key] = id
	}
	chain, err := s.device(r.GetCsr(), id)
	return &controlv1.JoinResponse{DeviceId: id, Chain: chain, ServerTime: s.time(), Organization: "Example"}, err
}

func (s *server) RenewIdentity(ctx context.Context, r *controlv1.RenewIdentityRequest) (*controlv1.RenewIdentityResponse, error) {
	p, _ := peer.FromContext(ctx)
	old := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	chain, err := s.device(r.GetCsr(), old.Subject.CommonName)
	return &controlv1.RenewIdentityResponse{Chain: chain, ServerTime: s.time()}, err
}

func (s *server) Sync(_ context.Context, r *controlv1.SyncRequest) (*controlv1.SyncResponse, error) {
	if s.sync != nil {
		return s.sync(r), nil
	}
	return &controlv1.SyncResponse{ServerTime: s.time(), PolicyRevision: "1"}, nil
}

func (s *server) Await(ctx context.Context, r *controlv1.AwaitRequest) (*controlv1.AwaitResponse, error) {
	if s.await != nil {
		return s.await(ctx, r), nil
	}
	return &controlv1.AwaitResponse{}, nil
}

func (s *server) Submit(_ context.Context, r *controlv1.SubmitRequest) (*controlv1.SubmitResponse, error) {
	if s.submit != nil {
		return s.submit(r), nil
	}
	return &controlv1.SubmitResponse{Reference: "ref-" + r.GetEnrollmentId(), ServerTime: s.time()}, nil
}

func (s *server) Collect(_ context.Context, r *controlv1.CollectRequest) (*controlv1.CollectResponse, error) {
	if s.collect != nil {
		return s.collect(r), nil
	}
	return &controlv1.CollectResponse{ServerTime: s.time()}, nil
}

func (s *server) Report(_ context.Context, r *controlv1.ReportRequest) (*controlv1.ReportResponse, error) {
	resp := &controlv1.ReportResponse{Recorded: []string{"not one of theirs"}}
	for _, e := range r.GetEvents() {
		resp.Recorded = append(resp.Recorded, e.GetId())
	}
	return resp, nil
}

func refusal(code codes.Code, reason controlv1.Reason, more ...protoadapt.MessageV1) error {
	name := reason.String()[len("REASON_"):]
	details := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: "smime-agent", Reason: name}}, more...)
	s, err := status.New(code, "refused in a test").WithDetails(details...)
	if err != nil {
		return err
	}
	return s.Err()
}

func retryIn(d time.Duration) protoadapt.MessageV1 {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// memory is a secret store that can fail.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	fail   func(op string) error
	puts   int
}

var errAbsent = errors.New("absent")

func (m *memory) op(op string) error {
	if m.fail == nil {
		return nil
	}
	return m.fail(op)
}

func (m *memory) Get(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.op("get"); err != nil {
		return nil, err
	}
	v, ok := m.values[name]
	if !ok {
		return nil, errAbsent
	}
	return bytes.Clone(v), nil
}

func (m *memory) Put(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.op("put"); err != nil {
		return err
	}
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	m.puts++
	m.values[name] = bytes.Clone(value)
	return nil
}

func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, name)
	return m.op("delete")
}

// config is that of a client of s.
func config(s *server, m *memory) Config {
	return Config{
		Address: s.address, Anchors: s.ca.pem(), Token: func() string { return goodToken },
		Facts:   Facts{Hostname: "host\xff", OS: "linux", AgentVersion: "1.0", MachineIDHash: "machine-a"},
		Secrets: m, Absent: func(err error) bool { return errors.Is(err, errAbsent) },
		Now: time.Now, Timeout: 5 * time.Second,
	}
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// joined is a client that is admitted.
func joined(t *testing.T, s *server) *Client {
	t.Helper()
	c := client(t, config(s, &memory{}))
	if j, err := c.EnsureJoined(t.Context()); err != nil || !j.New {
		t.Fatalf("join: %+v, %v", j, err)
	}
	return c
}

func wantError(t *testing.T, err error, kind enroll.Kind, code enroll.Code) *enroll.Error {
	t.Helper()
	e, ok := errors.AsType[*enroll.Error](err)
	if !ok || e.Kind != kind || e.Code != code || e.Hint == "" {
		t.Fatalf("error = %v (%#v), want %s %s with a hint", err, e, kind, code)
	}
	return e
}

// connectProxy is a real HTTP proxy for CONNECT. It counts what it let through.
func connectProxy(t *testing.T, credentials string, answer string) (address string, through *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	through = &atomic.Int32{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveConnect(conn, credentials, answer, through)
		}
	}()
	return l.Addr().String(), through
}

func serveConnect(conn net.Conn, credentials, answer string, through *atomic.Int32) {
	defer func() { _ = conn.Close() }()
	target, given, err := readConnect(conn)
	if err != nil {
		return
	}
	if given != credentials {
		answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno"
	}
	if answer != "" {
		_, _ = io.WriteString(conn, answer)
		return
	}
	up, err := net.Dial("tcp", target)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer func() { _ = up.Close() }()
	through.Add(1)
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	done := make(chan struct{})
	go func() { _, _ = io.Copy(up, conn); _ = up.Close(); close(done) }()
	_, _ = io.Copy(conn, up)
	_ = conn.Close()
	<-done
}
