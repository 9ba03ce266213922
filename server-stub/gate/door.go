package gate

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// HandshakeTime is how long a TLS handshake may take, waiting for others' included.
const HandshakeTime = 10 * time.Second

// How long one that does nothing keeps a place that another needs. Whoever means
// well is waited for one round trip in all, and has a place for the moment of a call
// if it has no identity.
const (
	patience = 500 * time.Millisecond
	// crowdPatience is that with an address that has more places than another's.
	crowdPatience    = patience / 5
	namelessPatience = 2 * time.Second
)

// oldest is among how many of the oldest handshakes one that does nothing is looked
// for, so that refusing stays cheap.
const oldest = 64

// The parts of the limits that some may have.
const (
	addressPart  = 2 // of the handshakes, for one address
	namelessPart = 8 // of the connections, for callers without an identity
)

// Limits bound connections. A zero field stands for the default.
type Limits struct {
	// Connections is how many may be open at once: 16,384. An eighth of them may be
	// of callers without an identity.
	Connections int
	// Handshakes is how many of them may be in the TLS handshake: 2,048. Half of them
	// may come from one address (IPv6: from one /64).
	Handshakes int
}

// Result is what became of a connection.
type Result string

// The results, as metrics name them.
const (
	// Named and Nameless are through the handshake, with an identity of this server
	// and without.
	Named    Result = "named"
	Nameless Result = "nameless"
	// Failed is a handshake that failed, or that took too long.
	Failed Result = "failed"
	// Stalled is one that did nothing and had to make room.
	Stalled Result = "stalled"
	// Refused had no place, RefusedAddress none for its address.
	Refused        Result = "refused"
	RefusedAddress Result = "refused_address"
)

// errNoPlace: whoever called is to come back later. It is closed without a word:
// TLS has none for this, and a connection is all that it is worth.
var errNoPlace = errors.New("no place for another connection")

// errGone: the connection was closed, or its time is over.
var errGone = errors.New("connection was closed to make room")

// Door bounds connections. Only so many handshakes compute at once as there are
// processors, those first that are nearly through: so under any load some get
// through quickly, where all at once would end in everybody's timeout, and calls
// on connections that are through go on. Waiting for a peer takes no turn.
type Door struct {
	limits  Limits
	observe func(Result)
	log     *slog.Logger

	mu       sync.Mutex
	shut     bool
	open     int
	arriving list.List // of *visitor, in the handshake, oldest first
	from     map[netip.Prefix]int
	nameless list.List // of *visitor, through without an identity, oldest first
	// turns are how many more handshakes may compute now. Who waits for one has
	// begun its last part, or not.
	turns            int
	ending, starting list.List // of *visitor
	told             time.Time
	// These are the constants of the same names; tests have others.
	patience, crowdPatience, namelessPatience time.Duration
}

// NewDoor makes a door. observe counts what becomes of connections.
func NewDoor(limits Limits, observe func(Result), log *slog.Logger) *Door {
	limits.Connections = cmp.Or(limits.Connections, 16384)
	limits.Handshakes = cmp.Or(limits.Handshakes, 2048)
	return &Door{
		limits: limits, observe: observe, log: log, from: map[netip.Prefix]int{},
		turns: runtime.GOMAXPROCS(0), patience: patience, crowdPatience: crowdPatience, namelessPatience: namelessPatience,
	}
}

// Counts gives how many connections are open, and how many of them are in the handshake.
func (d *Door) Counts() (open, handshakes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open, d.arriving.Len()
}

// Shut closes all that are in the handshake, and lets nobody else in.
func (d *Door) Shut() {
	d.mu.Lock()
	d.shut = true
	var out []*visitor
	for e := d.arriving.Front(); e != nil; e = d.arriving.Front() {
		out = append(out, d.evict(e))
	}
	d.mu.Unlock()
	for _, v := range out {
		_ = v.Close() // nobody is left to be told
	}
}

// enter gives a connection its place, or closes it.
func (d *Door) enter(raw net.Conn) (*visitor, error) {
	v := &visitor{Conn: raw, door: d, from: SourceOf(raw.RemoteAddr()), since: time.Now(), ready: make(chan struct{}, 1)}
	d.mu.Lock()
	out, refusal := d.room(v)
	if refusal == "" {
		d.open++
		d.from[v.from]++
		v.place = d.arriving.PushBack(v)
	}
	d.mu.Unlock()
	if out != nil {
		reset(out.Conn)
		d.observe(Stalled)
	}
	if refusal != "" {
		return nil, d.refuse(v, refusal)
	}
	return v, nil
}

// room looks for a place, at the cost of one who does nothing if need be. The
// caller holds d.mu, and closes who is put out.
func (d *Door) room(v *visitor) (out *visitor, refusal Result) {
	switch {
	case d.shut:
		return nil, Refused
	case d.from[v.from] >= max(1, d.limits.Handshakes/addressPart):
		out, refusal = d.stalled(v.from, true), RefusedAddress
	case d.arriving.Len() >= d.limits.Handshakes:
		out, refusal = d.stalled(v.from, false), Refused
	case d.open >= d.limits.Connections:
		if out, refusal = d.stalled(v.from, false), Refused; out == nil {
			out = d.dawdling()
		}
	}
	if out != nil {
		refusal = ""
	}
	return out, refusal
}

// stalled puts out, for one from an address, the oldest of those whose peer was
// waited for too long: of the same address alone, or sooner where another has more
// places than that.
func (d *Door) stalled(from netip.Prefix, same bool) *visitor {
	now := time.Now()
	e := d.arriving.Front()
	for range oldest {
		if e == nil {
			return nil
		}
		v, _ := e.Value.(*visitor)
		longest := d.patience
		if d.from[v.from] > d.from[from]+1 {
			longest = d.crowdPatience
		}
		if (!same || v.from == from) && v.idle(now) > longest {
			return d.evict(e)
		}
		e = e.Next()
	}
	return nil
}

// dawdling puts out the oldest that has no identity.
func (d *Door) dawdling() *visitor {
	e := d.nameless.Front()
	if e == nil {
		return nil
	}
	if v, _ := e.Value.(*visitor); time.Since(v.since) < d.namelessPatience {
		return nil
	}
	return d.evict(e)
}

// evict takes a connection's place away. The caller holds d.mu.
func (d *Door) evict(e *list.Element) *visitor {
	v, _ := e.Value.(*visitor)
	v.gone = true
	d.drop(v)
	return v
}

// drop takes v off all counts; again is no error. The caller holds d.mu.
func (d *Door) drop(v *visitor) {
	if v.dropped {
		return
	}
	v.dropped = true
	d.open--
	d.arrived(v)
	if v.place != nil {
		d.nameless.Remove(v.place)
		v.place = nil
	}
}

// arrived takes v off those in the handshake, and its turn back.
func (d *Door) arrived(v *visitor) {
	d.back(v)
	if v.through || v.place == nil {
		return
	}
	d.arriving.Remove(v.place)
	v.place = nil
	if d.from[v.from]--; d.from[v.from] == 0 {
		delete(d.from, v.from)
	}
}

// failed ends a handshake that came to nothing.
func (d *Door) failed(v *visitor) {
	d.mu.Lock()
	evicted := v.gone
	d.drop(v)
	d.mu.Unlock()
	if !evicted { // who was put out is counted already
		d.observe(Failed)
	}
}

// admit lets a handshake end well, if it may stay.
func (d *Door) admit(v *visitor, known bool) error {
	d.mu.Lock()
	d.arrived(v)
	v.through = true
	var out *visitor
	var refusal Result
	if !known && !v.gone {
		if d.nameless.Len() >= max(1, d.limits.Connections/namelessPart) {
			if out = d.dawdling(); out == nil {
				refusal = Refused
			}
		}
		if refusal == "" {
			v.since, v.place = time.Now(), d.nameless.PushBack(v)
		} else {
			d.drop(v)
		}
	}
	gone := v.gone
	d.mu.Unlock()
	if out != nil {
		reset(out.Conn)
		d.observe(Stalled)
	}
	switch {
	case gone:
		return errGone
	case refusal != "":
		return d.refuse(v, refusal)
	case known:
		d.observe(Named)
	default:
		d.observe(Nameless)
	}
	return nil
}

// leave makes room when a connection that was through is closed.
func (d *Door) leave(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(v)
}

// tellEvery is how often the log says that connections are refused.
const tellEvery = time.Minute

func (d *Door) refuse(v *visitor, why Result) error {
	reset(v.Conn)
	d.observe(why)
	d.mu.Lock()
	now, open, handshakes := time.Now(), d.open, d.arriving.Len()
	tell := !d.shut && now.Sub(d.told) >= tellEvery
	if tell {
		d.told = now
	}
	d.mu.Unlock()
	if tell {
		d.log.Warn("connections are refused", "why", string(why), "from", v.from.String(),
			"open", open, "max_connections", d.limits.Connections, "in_handshake", handshakes, "max_handshakes", d.limits.Handshakes)
	}
	return fmt.Errorf("%w (%s)", errNoPlace, why)
}

// SourceOf is the address as far as one party has it: an IPv6 network is a /64.
func SourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
