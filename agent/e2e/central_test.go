//go:build linux

package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/stub"
)

// openWith is open with central management in this process: with a clock of its
// own, or losing answers. It gives the settings out, and counts calls.
func (w *world) openWith(o stub.Options) (*stub.Server, *calls) {
	w.t.Helper()
	ctx := w.within()
	w.must(w.Founded(ctx))
	n := &calls{counts: map[string]int{}, fault: o.Fault}
	o.Dir, o.Addr, o.Fault = w.Dir+"/central", w.ServerAddress(), n.count
	s, err := stub.Start(w.t.Context(), o)
	w.must(err)
	w.t.Cleanup(func() { _ = s.Close() })
	w.must(w.WriteSettings(ctx))
	w.must(w.StartAgent(ctx))
	return s, n
}

// calls counts what a server was asked.
type calls struct {
	mu     sync.Mutex
	counts map[string]int
	fault  func(string) error
}

func (c *calls) count(method string) error {
	c.mu.Lock()
	c.counts[method]++
	c.mu.Unlock()
	if c.fault != nil {
		return c.fault(method)
	}
	return nil
}

func (c *calls) of(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[method]
}

// TestServerClock is case F5 from the beginning: this machine's clock is wrong
// before it ever joined, seen from the server's, which is moved here. [TestClock]
// moves the machine's.
func TestServerClock(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"day ahead": 24 * time.Hour, "hour behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			if skew != 24*time.Hour {
				onlyFull(t, "the quick form has one wrong clock")
			}
			t.Parallel()
			w := company(t, nil)
			_, n := w.openWith(stub.Options{Now: func() time.Time { return time.Now().Add(skew) }})
			w.login(e2e.HelperOptions{})
			r := w.await("a proved certificate", has(alice, enroll.Active))
			c, _ := credential(r, alice, enroll.Active)
			if !c.Proof.OK() {
				t.Errorf("proof %+v", c.Proof)
			}
			if off := time.Duration(r.Device.ClockOffset * float64(time.Second)); (off - skew).Abs() > time.Minute {
				t.Errorf("the offset is taken for %v", off)
			}
			if n.of("Join") != 1 || n.of("Submit") != 1 || n.of("Collect") > 1 {
				t.Errorf("asked too often: %v", n.counts)
			}
			w.ledgerOf(c)
		})
	}
}

// TestLostAnswers is case F7: of each kind of call the first answers get lost
// after the server has done its work. There is one device, one certificate, and
// the token counts one use.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	w := company(t, nil)
	most := 1
	if full() {
		most = 2
	}
	lost := map[string]int{}
	var mu sync.Mutex
	_, n := w.openWith(stub.Options{AfterFault: func(method string) error {
		mu.Lock()
		defer mu.Unlock()
		if lost[method]++; lost[method] <= most && agentCalls[method] {
			return errors.New("lost")
		}
		return nil
	}})
	w.login(e2e.HelperOptions{})
	r := w.await("a proved certificate", has(alice, enroll.Active))
	c, _ := credential(r, alice, enroll.Active)
	w.ledgerOf(c)
	if entries := w.ledger(); len(entries) != 1 {
		t.Errorf("%d certificates: %+v", len(entries), entries)
	}
	var tokens []struct {
		Uses int `json:"uses"`
	}
	w.must(json.Unmarshal([]byte(w.central("token", "list", "--json")), &tokens))
	if len(tokens) != 1 || tokens[0].Uses != 1 {
		t.Errorf("tokens: %+v", tokens)
	}
	var devices []json.RawMessage
	w.must(json.Unmarshal([]byte(w.central("devices", "--json")), &devices))
	if len(devices) != 1 {
		t.Errorf("%d devices", len(devices))
	}
	if n.of("Submit") < 2 || n.of("Join") < 2 || n.of("Submit") > 6 {
		t.Errorf("calls: %v", n.counts)
	}
}

// agentCalls are the calls of agents, as the server names them.
var agentCalls = map[string]bool{"Join": true, "Sync": true, "Submit": true, "Collect": true, "Report": true}

// TestOutage is case F6: central management goes away and comes back. What is
// there keeps working, calls stay few, and what was asked for meanwhile comes.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := company(t, func(w *e2e.World) {
		if full() {
			w.Settings = nil // the waits as they are
		}
	})
	w.open()
	w.login(e2e.HelperOptions{})
	old, _ := credential(w.await("a proved certificate", has(alice, enroll.Active)), alice, enroll.Active)
	w.Server().Kill()
	hole := w.blackHole()
	w.agent("renew", alice)
	w.agent("prove", alice)
	r := w.await("the condition", func(r status.Report) bool {
		_, ok := credential(r, alice, enroll.Requested)
		return ok && hole.taken.Load() > 0
	})
	if c, ok := credential(r, alice, enroll.Active); !ok || c.ID != old.ID || !c.Proof.OK() {
		t.Errorf("in the outage: %+v", c)
	}
	if full() {
		time.Sleep(20 * time.Second)
		// Contact is tried after 2.5 to 5, 5 to 10, 10 to 20 s; the engine at 30 s; each
		// try may dial twice.
		if n := hole.taken.Load(); n > 16 {
			t.Errorf("%d connections in 20 s", n)
		} else {
			t.Logf("%d connections in 20 s of outage", n)
		}
	}
	hole.close()
	w.must(w.StartServer(w.within()))
	w.agent("sync") // what the next contact does by itself
	w.await("the renewal", func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Active)
		return ok && c.ID != old.ID
	})
	w.await("rest", func(r status.Report) bool { return r.Severity == status.OK })
	if n := len(w.ledger()); n != 2 {
		t.Errorf("%d certificates", n)
	}
}

// blackHole takes connections at central management's address and says nothing.
type blackHole struct {
	listener net.Listener
	taken    atomic.Int32
	mu       sync.Mutex
	open     []net.Conn
}

func (w *world) blackHole() *blackHole {
	w.t.Helper()
	l, err := net.Listen("tcp", w.ServerAddress())
	w.must(err)
	h := &blackHole{listener: l}
	w.t.Cleanup(h.close)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.taken.Add(1)
			h.mu.Lock()
			h.open = append(h.open, c)
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *blackHole) close() {
	_ = h.listener.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.open {
		_ = c.Close()
	}
}

// TestTokenRace is case F11: a token that is raced by many machines lets as many
// in as it says, over TLS and the network.
func TestTokenRace(t *testing.T) {
	t.Parallel()
	rounds, machines := 2, 16
	if full() {
		rounds, machines = 20, 64
	}
	s, err := stub.Start(t.Context(), stub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for round := range rounds {
		uses := 1 + round%3
		token, err := s.Token(t.Context(), &controlv1.CreateTokenRequest{MaxUses: uint32(uses)})
		if err != nil {
			t.Fatal(err)
		}
		if won := race(t.Context(), t, s, token, machines); won != uses {
			t.Fatalf("round %d: %d of %d machines joined with a token for %d", round, won, machines, uses)
		}
	}
	t.Logf("%d races of %d machines", rounds, machines)
}

// race has machines join at one moment and counts who could.
func race(ctx context.Context, t *testing.T, s *stub.Server, token string, machines int) int {
	t.Helper()
	var ready, done sync.WaitGroup
	var won atomic.Int32
	start := make(chan struct{})
	for i := range machines {
		conn, err := s.Dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		ready.Add(1)
		conn.Connect()
		done.Go(func() {
			defer conn.Close()
			ready.Done()
			<-start
			_, err := controlv1.NewControlServiceClient(conn).Join(ctx, &controlv1.JoinRequest{
				Token: token, Csr: csr, Facts: &controlv1.DeviceFacts{Hostname: fmt.Sprintf("racer%d", i)},
			})
			if err == nil {
				won.Add(1)
			}
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return int(won.Load())
}
