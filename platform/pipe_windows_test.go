package platform

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"
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
