package control

import (
	"bufio"
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"testing"

	"smime-agent/agent/enroll"
)

func readConnect(conn net.Conn) (target, credentials string, err error) {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return "", "", err
	}
	given, _ := strings.CutPrefix(req.Header.Get("Proxy-Authorization"), "Basic ")
	plain, err := base64.StdEncoding.DecodeString(given)
	return req.Host, string(plain), err
}

func TestThroughAProxy(t *testing.T) {
	s := newServer(t)
	for name, p := range map[string]struct {
		credentials string
		proxy       func(address string) Proxy
	}{
		"open":            {"", func(a string) Proxy { return Proxy{URL: "http://" + a} }},
		"with a password": {"alice:s3cret", func(a string) Proxy { return Proxy{URL: "http://" + a, User: "alice", Password: "s3cret"} }},
		"user in the URL": {"alice:s3cret", func(a string) Proxy { return Proxy{URL: "http://alice:s3cret@" + a} }},
	} {
		t.Run(name, func(t *testing.T) {
			address, through := connectProxy(t, p.credentials, "")
			cfg := config(s, &memory{})
			cfg.Proxy = p.proxy(address)
			if _, err := client(t, cfg).EnsureJoined(t.Context()); err != nil {
				t.Fatal(err)
			}
			if through.Load() != 1 {
				t.Errorf("%d connections through the proxy", through.Load())
			}
		})
	}
}

func TestProxyThatRefusesIsNamed(t *testing.T) {
	s := newServer(t)
	for name, p := range map[string]struct{ credentials, answer, want string }{
		"wrong password": {"alice:right", "", " answered 407"},
		"forbidden":      {"alice:wrong", "HTTP/1.1 403 Forbidden\r\n\r\n", " answered 403"},
		"no HTTP":        {"alice:wrong", "SSH-2.0-x\r\n\r\n", ""},
		"talkative":      {"alice:wrong", "HTTP/1.1 200 OK\r\n\r\nhello", ""},
		"endless header": {"alice:wrong", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", ""},
		"hangs up":       {"alice:wrong", " ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := connectProxy(t, p.credentials, p.answer)
			cfg := config(s, &memory{})
			cfg.Proxy = Proxy{URL: "http://" + address, User: "alice", Password: "wrong"}
			c := client(t, cfg)
			_, err := c.EnsureJoined(t.Context())
			e := wantError(t, err, enroll.Transient, CodeProxyRefused)
			if !strings.Contains(e.Hint, "The proxy "+address+p.want) {
				t.Errorf("hint = %s", e.Hint)
			}
			if strings.Contains(e.Error()+e.Hint, "wrong") {
				t.Errorf("a password is shown: %v", e)
			}
			if s.listener.accepted.Load() != 0 {
				t.Error("the server was reached past the proxy")
			}
		})
	}
}

func TestProxySetting(t *testing.T) {
	for _, bad := range []string{"proxy:3128", "socks5://proxy:1080", "http://", "://", "http://u:hunter2@pro xy"} {
		_, err := Proxy{URL: bad}.choose()
		if err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("password shown: %v", err)
		}
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "inside.example")
	choose, err := Proxy{URL: "system"}.choose()
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"central.example:443": "proxy.example:3128", "inside.example:443": ""} {
		u, err := choose(mustURL(t, "https://"+host))
		got := ""
		if u != nil {
			got = proxyAddress(u)
		}
		if err != nil || got != want {
			t.Errorf("%s through %q, %v; want %q", host, got, err, want)
		}
	}
}
