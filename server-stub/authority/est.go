package authority

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EST is a CA that speaks RFC 7030, with RFC 8951's corrections. Only cacerts,
// simpleenroll and simplereenroll are used; never serverkeygen: keys are made
// where they stay.
type EST struct {
	// URL is https, up to and with "/.well-known/est", with the CA's label behind it
	// where it has one (RFC 7030, 3.2.2).
	URL string
	// Identity signs in by TLS (3.3.2). User and Password do by HTTP Basic (3.2.3),
	// beside or instead.
	Identity *tls.Certificate
	User     string
	Password string
	// ServerRoots judge the EST server's certificate; nil means the system's.
	ServerRoots *x509.CertPool
	// Anchors judge what it issues; they are configured and never taken from cacerts
	// (the explicit trust anchors of 3.6.1).
	Anchors *x509.CertPool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

var _ Authority = (*EST)(nil)

const (
	estTime = 30 * time.Second
	// maxAnswer bounds what is read, in octets.
	maxAnswer = 1 << 20
	// minRetry and maxRetry hold what the CA asks for; usualRetry is for one that asks for nothing.
	minRetry   = time.Second
	usualRetry = time.Minute
	maxRetry   = 24 * time.Hour
)

// CheckAddress says what is wrong with URL and User, if anything is.
func (e *EST) CheckAddress() error {
	base, err := url.Parse(e.URL)
	if err == nil && base.User != nil {
		return fmt.Errorf("EST address at %s has a name in it; write that as the user, and the password into a file of its own", base.Host)
	}
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return errors.New("EST address: it must be https, as in https://ca.example.com/.well-known/est")
	}
	if strings.Contains(e.User, ":") { // RFC 7617, 2
		return fmt.Errorf("EST user %q: it must have no colon", e.User)
	}
	return nil
}

// Submit enrolls. "The client MUST wait at least the specified retry-after time
// before repeating the same request" (4.2.3): the same request is how EST
// collects, so that repeating one is no second order. The CA's own certificates are
// asked for first: what is issued while they cannot be had would be thrown away, and
// be ordered again and again.
func (e *EST) Submit(ctx context.Context, o Order) (Answer, error) {
	issuers, err := e.Chain(ctx)
	if err != nil {
		return Answer{}, err
	}
	operation := "simpleenroll"
	if o.Renewal {
		operation = "simplereenroll"
	}
	body := base64.StdEncoding.EncodeToString(o.CSR)
	resp, err := e.call(ctx, http.MethodPost, operation, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if resp.code == http.StatusAccepted {
		return Answer{RetryAfter: retryAfter(resp.retry, e.now())}, nil
	}
	certs, err := resp.certificates()
	if err != nil {
		return Answer{}, err
	}
	// 4.2.3: the answer has the certificate alone; some send issuers with it.
	var failed error
	for _, cert := range certs {
		chain, err := Check(o, cert, append(issuers, certs...), e.Anchors, e.now())
		if err == nil {
			return Answer{Chain: chain}, nil
		}
		failed = errors.Join(failed, err)
	}
	return Answer{}, failed
}

// Collect repeats the request.
func (e *EST) Collect(ctx context.Context, o Order) (Answer, error) { return e.Submit(ctx, o) }

// Revoke is not part of EST.
func (*EST) Revoke(context.Context, *x509.Certificate, string) error {
	return fmt.Errorf("revoke: %w: EST has no call for it", ErrUnsupported)
}

// Chain gives what cacerts does (4.1.3), without roots of its own trust.
func (e *EST) Chain(ctx context.Context) ([]*x509.Certificate, error) {
	resp, err := e.call(ctx, http.MethodGet, "cacerts", http.NoBody)
	if err != nil {
		return nil, err
	}
	if resp.code != http.StatusOK {
		return nil, fmt.Errorf("%w: cacerts answers %d", ErrAnswer, resp.code)
	}
	return resp.certificates()
}

func (e *EST) now() time.Time {
	if e.Now == nil {
		return time.Now()
	}
	return e.Now()
}

type estAnswer struct {
	code  int
	kind  string
	retry string
	body  []byte
}

// call runs one operation. Redirections are not followed: our credentials are
// for the server that was configured (3.2.1 lets a client ask a person first,
// and there is none).
func (e *EST) call(ctx context.Context, method, operation string, body io.Reader) (*estAnswer, error) {
	if err := e.CheckAddress(); err != nil {
		return nil, err
	}
	base, err := url.Parse(e.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, estTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base.JoinPath(operation).String(), body)
	if err != nil {
		return nil, fmt.Errorf("EST %s: %w", operation, err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/pkcs10")
		req.Header.Set("Content-Transfer-Encoding", "base64") // RFC 8951 makes it needless; older servers want it
	}
	if e.User != "" {
		req.SetBasicAuth(e.User, e.Password)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: e.ServerRoots, Time: e.now}
	if e.Identity != nil {
		config.Certificates = []tls.Certificate{*e.Identity}
	}
	transport := &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: EST %s: %w", ErrUnavailable, operation, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%w: EST %s: %w", ErrUnavailable, operation, err)
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("%w: EST %s answers more than %d octets", ErrAnswer, operation, maxAnswer)
	}
	answer := &estAnswer{code: resp.StatusCode, kind: resp.Header.Get("Content-Type"), retry: resp.Header.Get("Retry-After"), body: data}
	return answer, answer.judge(operation)
}

// judge sorts codes by what to do about them (4.2.3, and RFC 9110).
func (a *estAnswer) judge(operation string) error {
	switch {
	case a.code == http.StatusOK || a.code == http.StatusAccepted:
		return nil
	case a.code >= 500 || slices.Contains([]int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests,
	}, a.code):
		// Credentials, addresses and load are matters of the servers and of what is
		// between them, not of this order.
		return fmt.Errorf("%w: EST %s answers %d", ErrUnavailable, operation, a.code)
	case a.code < 300: // something may have been issued
		return fmt.Errorf("%w: EST %s answers %d", ErrAnswer, operation, a.code)
	case a.code < 400:
		return fmt.Errorf("%w: EST %s redirects (%d), which is not followed", ErrUnavailable, operation, a.code)
	default:
		return fmt.Errorf("%w: EST %s answers %d", ErrRefused, operation, a.code)
	}
}

func (a *estAnswer) certificates() ([]*x509.Certificate, error) {
	kind, _, err := mime.ParseMediaType(a.kind)
	if err != nil || kind != "application/pkcs7-mime" {
		return nil, fmt.Errorf("%w: content type %q", ErrAnswer, a.kind)
	}
	// RFC 8951, 3.1: base64, with or without line ends.
	text := bytes.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, a.body)
	der, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return CertsOnly(der)
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3), within bounds.
func retryAfter(text string, now time.Time) time.Duration {
	d := usualRetry
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, minRetry), maxRetry)
}
