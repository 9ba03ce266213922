package platform

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/windows"
)

func somePipe() string { return pipePrefix + "smime-agent-test-" + rand.Text() }

// answers says that a client is served: what he says comes back.
func answers(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := dial(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const said = "hello"
	got := make([]byte, len(said))
	if _, err := io.WriteString(c, said); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != said {
		t.Fatalf("%q, %v", got, err)
	}
}

// serve gives everybody back what he says, until the listener ends.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// faltering is a listener that fails some times before it has a client.
type faltering struct {
	net.Listener
	failures int
	client   net.Conn
}

func (f *faltering) Accept() (net.Conn, error) {
	f.failures--
	switch {
	case f.failures >= 0:
		return nil, windows.ERROR_NO_SYSTEM_RESOURCES
	case f.failures == -1:
		return f.client, nil
	}
	return nil, net.ErrClosed
}

func (*faltering) Close() error { return nil }

// TestAcceptGoesOn: one client who cannot be let in is not the end of the service,
// but one that lets in nobody is.
func TestAcceptGoesOn(t *testing.T) {
	for _, c := range []struct {
		failures int
		client   bool
		end      error
	}{{2, true, net.ErrClosed}, {acceptFailures, false, windows.ERROR_NO_SYSTEM_RESOURCES}} {
		synctest.Test(t, func(t *testing.T) {
			client := &net.TCPConn{} // nobody uses it
			l := &pipeListener{Listener: &faltering{failures: c.failures, client: client}, clients: make(chan net.Conn), ended: make(chan struct{})}
			go l.accept()
			if c.client {
				if got, err := l.Accept(); err != nil || got.(pipeEnd).Conn != client {
					t.Errorf("after %d failures: %v, %v", c.failures, got, err)
				}
			}
			if _, err := l.Accept(); !errors.Is(err, c.end) {
				t.Errorf("after %d failures it ended with %v, want %v", c.failures, err, c.end)
			}
		})
	}
}

// TestListenBesideClients: helpers try all the while when a service starts anew,
// and none of them may keep it from starting.
func TestListenBesideClients(t *testing.T) {
	address := somePipe()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for range 3 {
		clients.Go(func() {
			for ctx.Err() == nil {
				brief, done := context.WithTimeout(ctx, 20*time.Millisecond)
				if c, err := dial(brief, address); err == nil {
					_, _ = c.Write([]byte("x"))
					_ = c.Close()
				}
				done()
			}
		})
	}
	for range 30 {
		l, err := listen(address)
		if err != nil {
			t.Fatal(err)
		}
		go serve(l)
		answers(t, address)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListenAfterALingeringClient: the service went away, and a client has not
// let go of his end yet, which holds the name (Windows).
func TestListenAfterALingeringClient(t *testing.T) {
	address := somePipe()
	l, err := listen(address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		served <- c
	}()
	client, err := dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []io.Closer{<-served, l} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	let := time.AfterFunc(300*time.Millisecond, func() { _ = client.Close() })
	defer let.Stop()
	again, err := listen(address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	go serve(again)
	answers(t, address)
}
