// Package control is the agent's way to central management: it finds the way
// through proxies, believes only the server that the deployment pinned, keeps
// the device's identity and renews it, and turns what the server says into the
// words of package enroll, within bounds. What it needs of this machine it
// declares as [Secrets]; when to call is the caller's business, and while
// nobody calls nothing runs.
package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"smime-agent/agent/enroll"
)

// Secrets keeps the device's identity, for this machine's service only. Put
// replaces a value atomically.
type Secrets interface {
	Get(ctx context.Context, name string) ([]byte, error)
	Put(ctx context.Context, name string, value []byte) error
	Delete(ctx context.Context, name string) error
}

// SecretName is the one secret that a [Client] keeps: keys and certificates of
// the device as PEM.
const SecretName = "device-identity"

// Config is what a [Client] must be told. Address, Secrets, Absent, Now, and
// Anchors or Pins are required.
type Config struct {
	// Address is host and port of central management.
	Address string
	// Anchors (PEM) are the CAs one of which must have issued the server's certificate.
	Anchors []byte
	// Pins are of public keys one of which must be in the server's chain. With
	// Anchors both must hold.
	Pins []Pin
	// Token gives the join token, empty if there is none (any more). nil means none.
	Token func() string
	Proxy Proxy
	Facts Facts

	Secrets Secrets
	// Absent recognizes the error of Secrets.Get for a secret that is not there.
	Absent func(error) bool

	// Now is this machine's clock; time.Now keeps the monotonic reading that
	// [Client.Offset] needs to see a clock that is set back.
	Now func() time.Time
	// Offset is what [Client.Offset] said before the last restart.
	Offset time.Duration
	// NotBefore is a moment that is surely past, e.g. the last contact; with a
	// clock before it, the server's certificate is judged at that moment.
	NotBefore time.Time

	// Timeout bounds each call; 0 means 30 s.
	Timeout time.Duration
	// Idle is how long a connection is kept after an exchange; 0 means 20 s.
	Idle time.Duration
}

// Facts is what this machine says of itself; for the inventory.
type Facts struct {
	Hostname     string
	OS           string
	OSVersion    string
	AgentVersion string
	// MachineIDHash tells clones apart: an identity that was made under another
	// hash is not used. Empty means unknown.
	MachineIDHash string
}

// Condition is something about this device that somebody should know.
type Condition struct {
	Code enroll.Code
	// Severity is "info", "warning" or "error".
	Severity string
	Text     string
	Since    time.Time
	// EnrollmentID is empty if it is about the whole device.
	EnrollmentID enroll.ID
}

// Client speaks with central management. It is safe for use by several
// goroutines. Its errors are *[enroll.Error].
type Client struct {
	cfg   Config
	trust *trust
	dial  *dialer
	clock clock

	joining chan struct{} // held while an identity is made or renewed
	dialing chan struct{} // held while a connection is made

	mu       sync.Mutex
	link     *link
	sessions tls.ClientSessionCache
	identity *identity
	// refused names the identity that the server no longer takes.
	refused  string
	troubles map[source]Condition
	contact  time.Time
	early    map[string]outcome
	closed   bool
}

var _ enroll.Authority = (*Client)(nil)

// New checks the settings; it makes no connection. Its error is of kind
// [enroll.Waiting] with [CodeUnconfigured]: somebody must correct the settings.
func New(cfg Config) (*Client, error) {
	host, _, err := net.SplitHostPort(cfg.Address)
	if err == nil && host == "" {
		err = errors.New("host is missing")
	}
	if err != nil {
		return nil, unconfigured("The address of central management must be host:port.", fmt.Errorf("address %q: %w", cfg.Address, err))
	}
	if cfg.Secrets == nil || cfg.Absent == nil || cfg.Now == nil {
		return nil, unconfigured("The agent was put together wrongly.", errors.New("no secret store or no clock"))
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Idle == 0 {
		cfg.Idle = 20 * time.Second
	}
	c := &Client{
		cfg: cfg, clock: clock{offset: cfg.Offset},
		joining: make(chan struct{}, 1), dialing: make(chan struct{}, 1),
		troubles: map[source]Condition{}, early: map[string]outcome{},
	}
	if c.trust, err = newTrust(cfg.Anchors, cfg.Pins, host, c.trustedTime); err != nil {
		return nil, unconfigured(fmt.Sprintf("What to recognize central management by cannot be used: %v. It must be the CA's certificate as PEM, or a pin sha256/….", err), err)
	}
	proxy, err := cfg.Proxy.choose()
	if err != nil {
		return nil, unconfigured("The agent's proxy setting is wrong: use none, system or http://host:port.", err)
	}
	c.dial = &dialer{address: cfg.Address, proxy: proxy, auth: cfg.Proxy, trust: c.trust}
	return c, nil
}

func unconfigured(hint string, err error) *enroll.Error {
	return &enroll.Error{Kind: enroll.Waiting, Code: CodeUnconfigured, Hint: hint, Err: err}
}

// Close ends the connection. Calls that are under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.link != nil {
		c.link.end()
		c.link = nil
	}
	return nil
}

// Offset is the server's time minus this machine's, as far as is known.
func (c *Client) Offset() time.Duration { return c.clock.offsetAt(c.cfg.Now()) }

// LastContact is when the server last answered a call with success, by its own
// time; zero if it has not since the start.
func (c *Client) LastContact() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contact
}

// now is the server's time as far as is known.
func (c *Client) now() time.Time {
	t := c.cfg.Now()
	return t.Add(c.clock.offsetAt(t))
}

// trustedTime is the time at which the server's certificate is judged: never
// before a moment that is surely past, so that a clock that fell back to 1970
// does not lock the machine out. The floor can only make us stricter about
// certificates that have ended.
func (c *Client) trustedTime() time.Time {
	t, floor := c.now(), c.cfg.NotBefore
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity != nil && c.identity.leaf.NotBefore.After(floor) {
		floor = c.identity.leaf.NotBefore
	}
	if t.Before(floor) {
		return floor
	}
	return t
}
