package platformtest

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"smime-agent/platform"
)

// TestIPC holds [platform.Listen], [platform.Dial] and [platform.PeerOf] to their
// promises. address gives a fresh address that the service may take.
func TestIPC(t *testing.T, address func(t *testing.T) string) {
	t.Run("peers", func(t *testing.T) { testPeers(t, address(t)) })
	t.Run("one service", func(t *testing.T) { testOneService(t, address(t)) })
	t.Run("nobody there", func(t *testing.T) {
		if c, err := platform.Dial(t.Context(), address(t)); !errors.Is(err, platform.ErrNotFound) {
			t.Errorf("Dial: %v, %v, want ErrNotFound", c, err)
		}
	})
	t.Run("half open", func(t *testing.T) { testHalfOpen(t, address(t)) })
}

// Listen opens the address for one test and closes it after.
func Listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := platform.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func testPeers(t *testing.T, address string) {
	self, err := platform.CurrentUser()
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(t, address)
	client, err := platform.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for end, c := range map[string]net.Conn{"server": server, "client": client} {
		peer, err := platform.PeerOf(c)
		if err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		if peer.User != self.ID || platform.AccountOf(peer.User) != self.Account {
			t.Errorf("%s sees %+v at the other end, want %+v", end, peer, self)
		}
	}
	if _, err := client.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "ping" {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := server.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	// Asking for the peer must not have taken the deadlines away.
	if _, err := server.Read(got); err == nil {
		t.Error("read without data returned")
	}
}

func testOneService(t *testing.T, address string) {
	l := Listen(t, address)
	if second, err := platform.Listen(address); !errors.Is(err, platform.ErrExists) {
		t.Fatalf("second Listen: %v, %v, want ErrExists", second, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	Listen(t, address)
}

// testHalfOpen: connections that say nothing do not keep others out.
func testHalfOpen(t *testing.T, address string) {
	l := Listen(t, address)
	served := make(chan error, 1)
	go func() { served <- greet(l) }()
	const silent = 200
	for range silent {
		c, err := platform.Dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	start := time.Now()
	c, err := platform.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{'?'}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("served only after %v", took)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the server ended with %v", err)
	}
}

// greet answers each byte of each connection with another.
func greet(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if _, err := platform.PeerOf(c); err != nil {
				return
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
				_, _ = c.Write([]byte{'!'})
			}
		}()
	}
}
