package control

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Proxy says how to get out of the network.
type Proxy struct {
	// URL is "http://host:port" or "https://host:port"; "system" means the
	// environment (HTTPS_PROXY, NO_PROXY), "none" or empty the direct way.
	URL string
	// User and Password are for Basic authentication; a user in the URL is
	// taken too. An http proxy sees them in the clear.
	User, Password string
}

func (p Proxy) choose() (func(*url.URL) (*url.URL, error), error) {
	switch p.URL {
	case "", "none":
		return func(*url.URL) (*url.URL, error) { return nil, nil }, nil
	case "system":
		return httpproxy.FromEnvironment().ProxyFunc(), nil
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return nil, errors.New("proxy: not a URL") // the error of Parse may show a password
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("proxy %q: want http:// or https:// and a host", u.Redacted())
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }, nil
}

func proxyAddress(u *url.URL) string {
	port := u.Port()
	switch {
	case port == "" && u.Scheme == "https":
		port = "443"
	case port == "":
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// tunnel asks the proxy to connect us through (RFC 9110 §9.3.6).
func (d *dialer) tunnel(ctx context.Context, conn net.Conn, proxy *url.URL) (net.Conn, error) {
	fail := func(err error) error {
		return &dialError{stage: stageProxy, hop: proxyAddress(proxy), err: err}
	}
	if proxy.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, fail(err)
		}
		conn = secure
	}
	deadline := time.Now().Add(dialTimeout)
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, fail(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	status, err := d.ask(conn, proxy)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fail(err)
	}
	if status != http.StatusOK {
		return nil, &dialError{stage: stageProxy, hop: proxyAddress(proxy), status: status, err: fmt.Errorf("status %d", status)}
	}
	return conn, conn.SetDeadline(time.Time{})
}

// ask sends CONNECT and gives the answer's status.
func (d *dialer) ask(conn net.Conn, proxy *url.URL) (int, error) {
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: d.address}, Host: d.address, Header: http.Header{},
	}
	user, password := d.auth.User, d.auth.Password
	if user == "" && proxy.User != nil {
		user = proxy.User.Username()
		password, _ = proxy.User.Password()
	}
	if user != "" {
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return 0, err
	}
	in := bufio.NewReader(io.LimitReader(conn, 64<<10))
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return 0, err
	}
	// What comes with a refusal is a page for people; it is left unread. A TLS
	// server does not speak first, so nothing may come with an agreement.
	if resp.StatusCode == http.StatusOK && in.Buffered() > 0 {
		return 0, errors.New("the proxy sent data of its own into the tunnel")
	}
	return resp.StatusCode, nil
}
