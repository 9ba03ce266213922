package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
)

// Step is one thing that [Client.Probe] tried on the way to the server.
type Step struct {
	// Name is "proxy", "name", "connection", "tls", "identity" or "call".
	Name string
	OK   bool
	// Detail is what was seen; Cure says what to do, if it was not OK.
	Detail, Cure string
}

// Probe goes the way to the server on a connection of its own, step by step,
// and stops at the first step without which the next cannot be made. It changes
// nothing.
func (c *Client) Probe(ctx context.Context) []Step {
	steps, first, ok := c.probeProxy(nil)
	if !ok {
		return steps
	}
	if steps, ok = c.probeName(ctx, steps, first); !ok {
		return steps
	}
	id, idStep := c.probeIdentity(ctx)
	conn, way, err := c.dial.open(ctx, c.trust.tlsConfig(id.certificate(), nil))
	step := wayStep(way, err)
	if steps = append(steps, step); !step.OK {
		return steps
	}
	steps = append(steps, c.tlsStep(way, err))
	if err != nil {
		return steps
	}
	defer func() { _ = conn.Close() }()
	steps = append(steps, idStep)
	l, err := newLink(c.cfg.Address, "smime-agent/probe", "probe", conn)
	if err != nil {
		return append(steps, failedStep("call", err))
	}
	defer l.end()
	return append(steps, c.probeCall(ctx, l, id != nil))
}

func failedStep(name string, err error) Step {
	e, _ := errorOf(err)
	detail := err.Error()
	if s, ok := status.FromError(err); ok { // without gRPC's own words
		detail = fmt.Sprintf("the server answered %s: %s", s.Code(), s.Message())
	}
	return Step{Name: name, Detail: detail, Cure: e.Hint}
}

func (c *Client) probeProxy(steps []Step) ([]Step, string, bool) {
	proxy, err := c.dial.proxy(&url.URL{Scheme: "https", Host: c.cfg.Address})
	switch {
	case err != nil:
		return append(steps, failedStep("proxy", &dialError{stage: stageProxySetting, hop: c.cfg.Address, err: err})), "", false
	case proxy == nil:
		return append(steps, Step{Name: "proxy", OK: true, Detail: "no proxy for " + c.cfg.Address}), c.cfg.Address, true
	}
	first := proxyAddress(proxy)
	return append(steps, Step{Name: "proxy", OK: true, Detail: "through " + first}), first, true
}

func (c *Client) probeName(ctx context.Context, steps []Step, address string) ([]Step, bool) {
	host, _, err := net.SplitHostPort(address)
	if err == nil && net.ParseIP(host) != nil {
		return steps, true
	}
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return append(steps, failedStep("name", &dialError{stage: stageName, hop: address, err: err})), false
	}
	return append(steps, Step{Name: "name", OK: true, Detail: fmt.Sprintf("%s is %v", host, found)}), true
}

// wayStep is about all up to TLS, the proxy's agreement included.
func wayStep(way route, err error) Step {
	d, ok := errors.AsType[*dialError](err)
	if ok && (way.remote == "" || d.stage == stageProxy) {
		return failedStep("connection", err)
	}
	return Step{Name: "connection", OK: true, Detail: "connected to " + way.remote}
}

func (c *Client) tlsStep(way route, err error) Step {
	if err != nil {
		return failedStep("tls", err)
	}
	leaf := way.server.PeerCertificates[0]
	return Step{Name: "tls", OK: true, Detail: fmt.Sprintf("%s, issued by %s, valid to %s, key %s, as pinned",
		leaf.Subject, leaf.Issuer, leaf.NotAfter.UTC().Format(time.RFC3339), pinOf(leaf))}
}

func (c *Client) probeIdentity(ctx context.Context) (*identity, Step) {
	r, broken, err := c.load(ctx)
	if err != nil {
		return nil, failedStep("identity", err)
	}
	if why := c.unusable(r, broken); why != nil {
		s := Step{Name: "identity", Detail: why.Err.Error(), Cure: why.Hint}
		if c.cfg.Token != nil && c.cfg.Token() != "" {
			s.Detail, s.Cure = "not joined yet, but there is a join token", "The agent joins by itself; see the status for what kept it from that."
		}
		return nil, s
	}
	id := r.identity
	s := Step{Name: "identity", OK: true, Detail: fmt.Sprintf("device %s, valid to %s", id.device, id.leaf.NotAfter.UTC().Format(time.RFC3339))}
	if c.now().After(id.leaf.NotAfter) {
		s.OK, s.Cure = false, "The identity has ended. The agent renews it as soon as central management answers; if it refuses, give this machine a new join token."
	}
	return id, s
}

// probeCall makes the lightest call there is. That it is refused for want of an
// identity still shows that the server is there.
func (c *Client) probeCall(ctx context.Context, l *link, joined bool) Step {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	_, err := l.stub.Await(ctx, &controlv1.AwaitRequest{MaxWait: durationpb.New(0)})
	if alert := l.conn.refusal(); err != nil && alert != nil {
		err = &dialError{stage: stageIdentity, hop: c.cfg.Address, err: alert}
	}
	switch {
	case !joined && status.Code(err) == codes.Unauthenticated:
		return Step{Name: "call", OK: true, Detail: "central management answers, and wants this machine to join first"}
	case err != nil:
		return failedStep("call", err)
	}
	return Step{Name: "call", OK: true, Detail: "central management answers"}
}
