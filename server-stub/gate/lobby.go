package gate

import (
	"container/list"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// LetIn is a connection to an HTTP server that got a place.
const LetIn Result = "let_in"

// Lobby bounds the connections of an HTTP server. Half of the places may be of one
// address (IPv6: of one /64). When all are taken, whoever comes gets that of one
// whose peer has long been waited for: for a request, for the rest of one, to read
// the answer, or for the next.
type Lobby struct {
	places  int
	observe func(Result)
	log     *slog.Logger

	mu      sync.Mutex
	open    int
	from    map[netip.Prefix]int
	waiting list.List // of *guest whose peer is waited for, the longest first
	told    time.Time
	// These are namelessPatience, and a fifth of it; tests have others.
	patience, crowdPatience time.Duration
}

// NewLobby makes a lobby. observe counts what becomes of connections.
func NewLobby(places int, observe func(Result), log *slog.Logger) *Lobby {
	return &Lobby{
		places: places, observe: observe, log: log, from: map[netip.Prefix]int{},
		patience: namelessPatience, crowdPatience: namelessPatience / 5,
	}
}

// Guard readies an HTTP server to be served on the listener that it gives.
func (l *Lobby) Guard(s *http.Server, on net.Listener) net.Listener {
	s.Handler = l.handler(s.Handler)
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
			conn = secured.NetConn()
		}
		g, ok := conn.(*guest)
		if !ok {
			return ctx
		}
		return context.WithValue(ctx, guestKey{}, g)
	}
	return lobbyListener{Listener: on, lobby: l}
}

type lobbyListener struct {
	net.Listener
	lobby *Lobby
}

// Accept gives the next connection that has a place.
func (a lobbyListener) Accept() (net.Conn, error) {
	for {
		raw, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g := a.lobby.enter(raw); g != nil {
			return g, nil
		}
	}
}

type guestKey struct{}

// handler notes while a request is answered that it is not the peer who is waited for.
func (l *Lobby) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g, ok := r.Context().Value(guestKey{}).(*guest); ok {
			l.begin(g)
			defer l.end(g)
			if r.Body != http.NoBody {
				r.Body = guestBody{ReadCloser: r.Body, guest: g}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// guest is a connection that has a place.
type guest struct {
	net.Conn
	lobby *Lobby
	from  netip.Prefix

	// These are the lobby's, under its lock.
	place   *list.Element // among those whose peer is waited for
	asked   time.Time     // since when it is
	waited  time.Duration // for the peer, before that, in this request
	serving bool          // a request is answered
	dropped bool
}

// Write sends to a peer that may be slow to read.
func (g *guest) Write(p []byte) (int, error) {
	g.lobby.pause(g)
	defer g.lobby.proceed(g)
	return g.Conn.Write(p)
}

// Close closes the connection and makes room for another.
func (g *guest) Close() error {
	g.lobby.leave(g)
	return g.Conn.Close()
}

// guestBody is the body of a request, which the peer may be slow to send.
type guestBody struct {
	io.ReadCloser
	guest *guest
}

// Read waits for the peer.
func (b guestBody) Read(p []byte) (int, error) {
	b.guest.lobby.pause(b.guest)
	defer b.guest.lobby.proceed(b.guest)
	return b.ReadCloser.Read(p)
}

// enter gives a connection its place, or closes it.
func (l *Lobby) enter(raw net.Conn) *guest {
	g := &guest{Conn: raw, lobby: l, from: SourceOf(raw.RemoteAddr())}
	l.mu.Lock()
	out, refusal := l.room(g.from)
	if refusal == "" {
		l.open++
		l.from[g.from]++
		l.wait(g)
	}
	open, tell := l.open, refusal != "" && time.Since(l.told) >= tellEvery
	if tell {
		l.told = time.Now()
	}
	l.mu.Unlock()
	if out != nil {
		reset(out.Conn)
		l.observe(Stalled)
	}
	if refusal == "" {
		l.observe(LetIn)
		return g
	}
	reset(raw)
	l.observe(refusal)
	if tell {
		l.log.Warn("connections are refused", "why", string(refusal), "from", g.from.String(), "open", open, "places", l.places)
	}
	return nil
}

// room looks for a place, at the cost of one who does nothing if need be. The
// caller holds l.mu, and closes who is put out.
func (l *Lobby) room(from netip.Prefix) (out *guest, refusal Result) {
	switch {
	case l.from[from] >= max(1, l.places/addressPart):
		out, refusal = l.stalled(from, true), RefusedAddress
	case l.open >= l.places:
		out, refusal = l.stalled(from, false), Refused
	}
	if out != nil {
		refusal = ""
	}
	return out, refusal
}

// stalled puts out one whose peer was waited for too long: of the same address
// alone, or sooner where another has more places than that.
func (l *Lobby) stalled(from netip.Prefix, same bool) *guest {
	now, e := time.Now(), l.waiting.Front()
	for range oldest {
		if e == nil {
			return nil
		}
		g, _ := e.Value.(*guest)
		longest := l.patience
		if l.from[g.from] > l.from[from]+1 {
			longest = l.crowdPatience
		}
		if (!same || g.from == from) && g.waited+now.Sub(g.asked) > longest {
			l.drop(g)
			return g
		}
		e = e.Next()
	}
	return nil
}

// drop takes g off all counts; again is no error. The caller holds l.mu.
func (l *Lobby) drop(g *guest) {
	if g.dropped {
		return
	}
	l.served(g)
	g.dropped = true
	l.open--
	if l.from[g.from]--; l.from[g.from] == 0 {
		delete(l.from, g.from)
	}
}

func (l *Lobby) leave(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(g)
}

// wait notes that the peer is waited for, served that it is not. The caller holds l.mu.
func (l *Lobby) wait(g *guest) {
	if g.place == nil && !g.dropped {
		g.asked, g.place = time.Now(), l.waiting.PushBack(g)
	}
}

func (l *Lobby) served(g *guest) {
	if g.place != nil {
		g.waited += time.Since(g.asked)
		l.waiting.Remove(g.place)
		g.place = nil
	}
}

// begin and end enclose the answer to a request, pause and proceed what waits for
// the peer in the midst of it. Outside of it the peer is waited for all the time.
func (l *Lobby) begin(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g.serving = true
	l.served(g)
}

func (l *Lobby) end(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g.serving, g.waited = false, 0
	l.wait(g)
}

func (l *Lobby) pause(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait(g)
}

func (l *Lobby) proceed(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.serving {
		l.served(g)
	}
}
