package gate

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// hall is an HTTP server behind a lobby.
type hall struct {
	*Lobby
	addr string
	// entered has one for each request that is at work until release is closed.
	entered chan struct{}
	release chan struct{}

	mu   sync.Mutex
	seen map[Result]int
}

// tooBig is more than the kernel takes for a peer that does not read.
const tooBig = 64 << 20

func openHall(t *testing.T, places int, patience time.Duration) *hall {
	t.Helper()
	on, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{addr: on.Addr().String(), entered: make(chan struct{}, 100), release: make(chan struct{}), seen: map[Result]int{}}
	h.Lobby = NewLobby(places, func(r Result) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.seen[r]++
	}, slog.New(slog.DiscardHandler))
	h.patience, h.crowdPatience = patience, patience
	mux := http.NewServeMux()
	mux.HandleFunc("/work", func(http.ResponseWriter, *http.Request) {
		h.entered <- struct{}{}
		<-h.release
	})
	mux.HandleFunc("/body", func(_ http.ResponseWriter, r *http.Request) {
		h.entered <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body) // what comes of it is the test's concern
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		h.entered <- struct{}{}
		_, _ = w.Write(make([]byte, tooBig)) // whoever is put out gets no more
	})
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Hour}
	on = h.Guard(server, on)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(on) }) // ends with Close
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return h
}

// call connects from 127.0.0.N and says something, if it is not empty.
func (h *hall) call(t *testing.T, n byte, words string) net.Conn {
	t.Helper()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}}
	conn, err := from.DialContext(t.Context(), "tcp", h.addr)
	if err != nil { // whoever has no place may hear of it here already
		conn, _ = net.Pipe()
		_ = conn.Close()
		return conn
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, words) // or here
	return conn
}

// count is how often a result was; wait waits until it was so often.
func (h *hall) count(r Result) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[r]
}

func (h *hall) wait(t *testing.T, r Result, n int) {
	t.Helper()
	until(t, string(r), func() bool { return h.count(r) == n })
}

// get has a request answered, if there is a place.
func (h *hall) get(t *testing.T, n byte) bool {
	t.Helper()
	conn := h.call(t, n, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(conn) // whoever has none gets nothing
	return strings.HasPrefix(string(answer), "HTTP/1.1 200")
}

func request(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// TestLobbyIsBounded: no more connections are open than may be, half of them of one
// address, and who leaves makes room.
func TestLobbyIsBounded(t *testing.T) {
	h := openHall(t, 4, time.Hour)
	first := h.call(t, 2, "")
	h.call(t, 2, "")
	h.wait(t, LetIn, 2)
	h.call(t, 2, "")
	h.wait(t, RefusedAddress, 1)
	h.call(t, 3, "")
	h.call(t, 4, "")
	h.wait(t, LetIn, 4)
	h.call(t, 5, "")
	h.wait(t, Refused, 1)
	_ = first.Close()
	until(t, "a place is free", h.free)
	if !h.get(t, 5) {
		t.Error("nobody answers")
	}
}

// free says that a place is.
func (h *hall) free() bool {
	h.Lobby.mu.Lock()
	defer h.Lobby.mu.Unlock()
	return h.open < h.places
}

// TestLobbyMakesRoom: whoever does nothing, sends half a request, or does not read
// the answer loses the place to who comes; never one whose request is at work.
func TestLobbyMakesRoom(t *testing.T) {
	for name, words := range map[string]string{
		"silent":         "",
		"half a heading": "GET / HTT",
		"half a body":    "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"does not read":  request("/big"),
		"idle":           request("/"),
	} {
		t.Run(name, func(t *testing.T) {
			h := openHall(t, 2, -1) // who is waited for at all is waited for too long
			worker := h.call(t, 2, request("/work"))
			<-h.entered
			idler := h.call(t, 3, words)
			h.wait(t, LetIn, 2)
			switch name {
			case "half a body", "does not read":
				<-h.entered
			case "idle":
				if _, err := io.ReadFull(idler, make([]byte, len("HTTP/1.1 200"))); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "room is made", func() bool { return h.get(t, 4) }) // at first it may be at work still
			h.wait(t, Stalled, 1)
			until(t, "one is left", h.free)
			second := h.call(t, 4, request("/work"))
			<-h.entered
			refused := h.count(Refused)
			h.call(t, 5, "")
			h.wait(t, Refused, refused+1)
			close(h.release)
			for _, conn := range []net.Conn{worker, second} {
				answer := make([]byte, len("HTTP/1.1 200"))
				if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 200" {
					t.Errorf("who was at work gets %q, %v", answer, err)
				}
				_ = conn.Close()
			}
			until(t, "nobody is counted", func() bool {
				h.Lobby.mu.Lock()
				defer h.Lobby.mu.Unlock()
				return h.open == 0 && len(h.from) == 0 && h.waiting.Len() == 0
			})
		})
	}
}
