package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

// hostile is how a connection of the flood begins.
var hostile = map[string][]byte{
	"half-open":     nil,
	"garbage":       bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 1024),
	"preface only":  []byte(http2.ClientPreface),
	"half preface":  []byte(http2.ClientPreface[:10]),
	"largest frame": append([]byte(http2.ClientPreface), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
	"http/1.1":      []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}

// flood opens connections until ctx ends, and tells how many the service never
// closed at the same time.
func flood(ctx context.Context, dial func(context.Context) (net.Conn, error), n int) (opened, kept int) {
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	for len(all) < n && ctx.Err() == nil {
		for _, begin := range hostile {
			c, err := dial(ctx)
			if err != nil {
				continue // the listener's queue is full
			}
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = c.Write(begin)
			all = append(all, c)
		}
	}
	time.Sleep(200 * time.Millisecond)
	var open atomic.Int64
	var wait sync.WaitGroup
	for _, c := range all {
		wait.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := io.Copy(io.Discard, c); isTimeout(err) {
				open.Add(1)
			}
		})
	}
	wait.Wait()
	return len(all), int(open.Load())
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func TestAFloodOfOneUserHoldsUpNobodyElse(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	h := open(t, func(s *Server) { s.Limits.Handshake = 30 * time.Second }) // half-open ones stay: the worst case
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		opened, kept := flood(ctx, func(ctx context.Context) (net.Conn, error) { return h.dial(ctx, "1000", h.address) }, 2400)
		t.Logf("opened %d, kept %d", opened, kept)
		if opened < 2000 || kept > 64 {
			t.Errorf("opened %d, kept %d", opened, kept)
		}
	}()
	if calls := serveOthers(t, h.dialer("1001"), done); calls == 0 {
		t.Error("nobody else was served")
	}
	deadline := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before+20 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before+20 {
		t.Errorf("%d goroutines before, %d after", before, n)
	}
	if _, err := h.client("1000").Status(t.Context()); err != nil {
		t.Error("the flood's user is locked out for good: ", err)
	}
}

// serveOthers calls the service over a new connection each time until done.
func serveOthers(t *testing.T, d Dialer, done <-chan struct{}) (calls int) {
	for {
		select {
		case <-done:
			return calls
		case <-time.After(60 * time.Millisecond): // within the rate
		}
		if err := oneStatus(t.Context(), d); err != nil {
			t.Errorf("call %d: %v", calls, err)
		}
		calls++
	}
}

func oneStatus(ctx context.Context, d Dialer) error {
	c, err := d.Connect(ctx)
	if err != nil {
		return err
	}
	_, err = c.Status(ctx)
	return errors.Join(err, c.Close())
}

// BenchmarkStatusInAFlood is what another user's status costs him, connection
// included: in the calm, and while a user floods the service. Goal of F10: below
// a second. The flood takes processor time as well, as any program may.
func BenchmarkStatusInAFlood(b *testing.B) {
	for name, flooders := range map[string]int{"calm": 0, "flood": 2} {
		b.Run(name, func(b *testing.B) {
			h := open(b, func(s *Server) {
				s.Limits.Handshake, s.Limits.Rate, s.Limits.Burst = 30*time.Second, 1e6, 1e6
			})
			ctx, cancel := context.WithCancel(b.Context())
			var wait sync.WaitGroup
			for range flooders {
				wait.Go(func() { floodUntil(ctx, h) })
			}
			for b.Loop() {
				if err := oneStatus(ctx, h.dialer("1001")); err != nil {
					b.Fatal(err)
				}
			}
			cancel()
			wait.Wait()
		})
	}
}

// floodUntil keeps the last few hundred connections of a user open.
func floodUntil(ctx context.Context, h *house) {
	var kept [256]net.Conn
	for n := 0; ctx.Err() == nil; n++ {
		c, err := h.dial(ctx, "1000", h.address)
		if err != nil {
			continue
		}
		_, _ = c.Write(hostile["garbage"])
		if last := kept[n%len(kept)]; last != nil {
			_ = last.Close()
		}
		kept[n%len(kept)] = c
	}
	for _, c := range kept {
		if c != nil {
			_ = c.Close()
		}
	}
}

func TestHalfOpenConnectionsAreClosed(t *testing.T) {
	h := open(t, func(s *Server) { s.Limits.Handshake, s.Limits.Idle = 200*time.Millisecond, 300*time.Millisecond })
	for name, begin := range hostile {
		c, err := h.dial(t.Context(), "1000", h.address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(begin)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("%s: still open", name)
		}
		_ = c.Close()
	}
}

// Whoever connects and thinks before the first call is no half-open connection.
func TestAClientMayThinkBeforeItsFirstCall(t *testing.T) {
	const handshake = time.Second
	h := open(t, func(s *Server) { s.Limits.Handshake = handshake })
	c := h.client("1000")
	time.Sleep(2 * handshake)
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCallsBeyondTheRateAreRefused(t *testing.T) {
	h := open(t, func(s *Server) { s.Limits.Burst, s.Limits.Rate = 5, 0.001 })
	c := h.client("1000")
	refused := 0
	for range 10 {
		if _, err := c.Status(t.Context()); reasonOf(err) == ReasonTooMany {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused != 5 {
		t.Errorf("%d of 10 refused", refused)
	}
	if _, err := h.client("1000").Status(t.Context()); reasonOf(err) != ReasonTooMany {
		t.Error("a new connection gives new calls: ", err)
	}
	if _, err := h.client("1001").Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOpenCallsAreCounted(t *testing.T) {
	h := open(t, func(s *Server) { s.Limits.Calls = 3 })
	ctx, cancel := context.WithCancel(t.Context())
	c := h.client("1000")
	for range 3 {
		stream, err := c.api.Watch(ctx, &localv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Status(t.Context()); reasonOf(err) != ReasonTooMany {
		t.Error(err)
	}
	cancel()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := c.Status(t.Context()); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestLargeMessagesAreRefused(t *testing.T) {
	h := open(t, nil)
	c := h.client("1000")
	_, err := c.api.Decide(t.Context(), &localv1.DecideRequest{Verdict: "approve", Target: string(make([]byte, 1<<20))})
	if grpcstatus.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error("the connection is dead: ", err)
	}
}

// A message that announces a gigabyte must be refused by its first five bytes.
func TestAnAnnouncedGigabyteIsRefused(t *testing.T) {
	h := open(t, nil)
	c, err := h.dial(t.Context(), "1000", h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var headers bytes.Buffer
	e := hpack.NewEncoder(&headers)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", localv1.AgentService_Status_FullMethodName},
		{":authority", "localhost"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, 1<<30)
	if err := errors.Join(
		f.WriteSettings(),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}),
		f.WriteData(1, false, frame),
	); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal("no refusal: ", err)
		}
		if meta, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, field := range meta.Fields {
				if field.Name == "grpc-status" {
					if field.Value != "8" { // RESOURCE_EXHAUSTED
						t.Error(field)
					}
					runtime.ReadMemStats(&after)
					if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
						t.Errorf("took %d bytes", grown)
					}
					return
				}
			}
		}
	}
}

func TestUsageIsForgotten(t *testing.T) {
	now := moment
	c := newCallers(Limits{}.orDefaults(), func() time.Time { return now })
	if !c.connect("a") || !c.allow("a") {
		t.Fatal("refused")
	}
	c.disconnect("a")
	if len(c.users) != 1 {
		t.Error("a spent rate was forgotten: reconnecting would renew it")
	}
	now = now.Add(time.Minute)
	c.connect("a")
	done, _ := c.call("a")
	done()
	c.disconnect("a")
	if len(c.users) != 0 {
		t.Error("kept")
	}
}

// FuzzConnection gives the server whatever bytes a stranger may write.
func FuzzConnection(f *testing.F) {
	for _, begin := range hostile {
		f.Add(begin)
	}
	f.Add([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x05\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x8a"))
	l, err := net.Listen("unix", f.TempDir()+"/a.sock")
	if err != nil {
		f.Fatal(err)
	}
	everybody := func(net.Conn) (platform.Peer, error) { return platform.Peer{User: "uid:1000"}, nil }
	s := &Server{Agent: newScripted(), PeerOf: everybody, Limits: Limits{Rate: 1e6, Burst: 1e6}, Log: slog.New(slog.DiscardHandler)}
	ctx := f.Context() // f itself belongs to this goroutine
	go func() { _ = s.Serve(ctx, l) }()
	d := Dialer{Address: l.Addr().String(), Dial: func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", address)
	}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := d.conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = c.Write(raw)
		_ = c.Close()
		client, err := d.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		if _, err := client.Status(t.Context()); err != nil && reasonOf(err) != ReasonNotRunning {
			t.Error(err) // the connection may have been one too many; the server must not be gone
		}
		last, err := d.conn(t.Context())
		if err != nil {
			t.Fatal("nobody listens any more: ", err)
		}
		_ = last.Close()
	})
}
