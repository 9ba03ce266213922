package local

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

// queue is a listener whose callers stand in line already.
type queue struct{ waiting []*visitor }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.waiting) == 0 {
		return nil, net.ErrClosed
	}
	v := q.waiting[0]
	q.waiting = q.waiting[1:]
	return v, nil
}

func (*queue) Close() error   { return nil }
func (*queue) Addr() net.Addr { return &net.UnixAddr{} }

// visitor is a connection that knows whether it was turned away.
type visitor struct {
	net.Conn
	user   string
	closed bool
}

func (v *visitor) Close() error {
	v.closed = true
	return nil
}

func visitors(user string, n int) []*visitor {
	all := make([]*visitor, n)
	for i := range all {
		all[i] = &visitor{user: user}
	}
	return all
}

// The next who is within his share comes to the server at once, however many
// stand before him: for those beyond theirs nothing is begun.
func TestTheDoorTurnsAFloodAwayBeforeTheServerSeesIt(t *testing.T) {
	const share, flood = 4, 5000
	nobodys := visitors("", 3)
	hostile := visitors("uid:1000", flood)
	other := visitors("uid:1001", 1)[0]
	d := door{
		Listener: &queue{waiting: append(append(append([]*visitor{}, nobodys...), hostile...), other)},
		peerOf: func(c net.Conn) (platform.Peer, error) {
			return platform.Peer{User: c.(*visitor).user}, nil
		},
		callers: newCallers(Limits{Connections: share}.orDefaults(), time.Now),
		log:     slog.New(slog.DiscardHandler),
	}
	var let []net.Conn
	for range share + 1 {
		c, err := d.Accept()
		if err != nil {
			t.Fatal(err)
		}
		let = append(let, c)
	}
	if last := let[share].(*countedConn); last.peer.User != other.user {
		t.Errorf("after the flood's share came %q, want %q", last.peer.User, other.user)
	}
	for i, v := range append(nobodys, hostile...) {
		if within := i >= len(nobodys) && i < len(nobodys)+share; v.closed == within {
			t.Fatalf("connection %d of %q: closed %v", i, v.user, v.closed)
		}
	}
	if _, err := d.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("at the listener's end: %v", err)
	}
	// Who leaves gives his place back, once.
	for range 2 {
		_ = let[0].Close()
	}
	d.Listener = &queue{waiting: visitors("uid:1000", 2)}
	if _, err := d.Accept(); err != nil {
		t.Errorf("a free place is not given: %v", err)
	}
	if c, err := d.Accept(); err == nil {
		t.Errorf("one place was given twice: %v", c)
	}
}

// The service asks itself for its status (agent/service): whatever else runs as its
// account has shares of its own, of connections and of calls.
func TestTheServicesOwnProcessHasItsOwnShare(t *testing.T) {
	const most = 4
	flood, own := platform.Peer{User: "uid:0", PID: os.Getpid() + 1}, platform.Peer{User: "uid:0", PID: os.Getpid()}
	from := map[net.Conn]platform.Peer{}
	line := visitors("uid:0", most+2)
	for _, v := range line {
		from[v] = flood
	}
	from[line[most+1]] = own
	s := &service{callers: newCallers(Limits{Connections: most, Calls: 1, Burst: 1, Rate: 1e-9}.orDefaults(), time.Now), log: slog.New(slog.DiscardHandler)}
	d := door{
		Listener: &queue{waiting: line}, callers: s.callers, log: s.log,
		peerOf: func(c net.Conn) (platform.Peer, error) { return from[c], nil },
	}
	for range most {
		if c, err := d.Accept(); err != nil || c.(*countedConn).peer != flood {
			t.Fatalf("%v, %v", c, err)
		}
	}
	if c, err := d.Accept(); err != nil || c.(*countedConn).peer != own || !line[most].closed {
		t.Fatalf("beside the flood came %v, %v", c, err)
	}
	const method = localv1.AgentService_Status_FullMethodName
	for _, p := range []platform.Peer{flood, own} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: authInfo{secure(), p}})
		if _, err := s.tap(ctx, &tap.Info{FullMethodName: method}); err != nil {
			t.Errorf("first call of %+v: %v", p, err)
		}
		if _, err := s.enter(ctx, method); err != nil {
			t.Errorf("first call of %+v: %v", p, err)
		}
		if _, err := s.tap(ctx, &tap.Info{FullMethodName: method}); err == nil {
			t.Errorf("more calls of %+v than the rate", p)
		}
		if _, err := s.enter(ctx, method); err == nil {
			t.Errorf("more calls of %+v than one", p)
		}
	}
}

// A caller costs no question to the system's directory, which may be slow; only
// a helper that lends its session is asked for by name.
func TestOnlyASessionIsLookedUpByName(t *testing.T) {
	asked := make(chan string, 10)
	h := open(t, func(s *Server) {
		s.AccountOf = func(user string) string {
			asked <- user
			return "the account of " + user
		}
	})
	for range 3 {
		if _, err := h.client("1000").Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 0 {
		t.Fatalf("a status asked for the account of %s", <-asked)
	}
	h.lend("1000", newMemory())
	if len(asked) != 1 || <-asked != "uid:1000" {
		t.Errorf("the session's account was asked for %d times", len(asked))
	}
	if all := h.sessions.Present(); len(all) != 1 || all[0].Account != "the account of uid:1000" {
		t.Errorf("present: %+v", all)
	}
}
