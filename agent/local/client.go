package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

// Dialer knows the way to the service.
type Dialer struct {
	// Address is that of [platform.SystemPaths] if empty.
	Address string
	// Dial is [platform.Dial] if nil.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

const (
	// dialLimit bounds the way to the first message if ctx does not.
	dialLimit = 5 * time.Second
	// dialAgain is the pause when the listener's queue is full: Linux answers
	// EAGAIN for a Unix socket then (unix(7)), instead of letting the caller wait.
	dialAgain = 20 * time.Millisecond
)

func (d Dialer) conn(ctx context.Context) (net.Conn, error) {
	address, dial := d.Address, d.Dial
	if address == "" {
		address = platform.SystemPaths().Address
	}
	if dial == nil {
		dial = platform.Dial
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	for {
		c, err := dial(ctx, address)
		if !errors.Is(err, syscall.EAGAIN) || !pause(ctx, dialAgain) {
			return c, err
		}
	}
}

// Client calls the service over one connection. Its methods' errors are
// [*Error]s. It is safe for concurrent use. The service closes a connection that
// has had no call for a minute; then calls end with [ReasonNotRunning], and
// whoever needs more connects anew.
type Client struct {
	conn *grpc.ClientConn
	api  localv1.AgentServiceClient
}

// Dial connects to the service at an address; empty means the system's.
// [ReasonNotRunning] if nothing answers.
func Dial(ctx context.Context, address string) (*Client, error) {
	return Dialer{Address: address}.Connect(ctx)
}

// Connect connects to the service.
func (d Dialer) Connect(ctx context.Context) (*Client, error) {
	first, err := d.conn(ctx)
	if err != nil {
		return nil, fromDial(err)
	}
	hand := &handOver{first: first}
	conn, err := grpc.NewClient("passthrough:///local",
		grpc.WithContextDialer(hand.dial),
		grpc.WithTransportCredentials(kernel{}),
		grpc.WithAuthority("localhost"),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(reportLimit), grpc.MaxCallSendMsgSize(reportLimit)),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the service: %w", err), first.Close())
	}
	conn.Connect() // at once: the service hangs up on whoever says nothing for [Limits.Handshake]
	return &Client{conn: conn, api: localv1.NewAgentServiceClient(conn)}, nil
}

// handOver gives gRPC the one connection that is there. A client is one
// connection: when it breaks, whoever wants another connects anew, so that a
// service that is gone is never asked for behind anybody's back.
type handOver struct {
	mu    sync.Mutex
	first net.Conn
}

func (h *handOver) dial(context.Context, string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.first
	h.first = nil
	if c == nil {
		return nil, errors.New("the connection to the service has ended")
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func decode[T any](raw []byte) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, &Error{Reason: ReasonInternal, Err: fmt.Errorf("read the service's answer: %w", err)}
	}
	return v, nil
}

// Status gives the report of what the caller may see.
func (c *Client) Status(ctx context.Context) (status.Report, error) {
	r, err := c.api.Status(ctx, &localv1.StatusRequest{})
	if err != nil {
		return status.Report{}, fromStatus(err)
	}
	return decode[status.Report](r.GetReport())
}

// Watch calls see with the report now and after each change, until ctx ends
// (then it returns nil), see fails or the service goes.
func (c *Client) Watch(ctx context.Context, see func(status.Report) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.api.Watch(ctx, &localv1.WatchRequest{})
	if err != nil {
		return fromStatus(err)
	}
	for {
		m, err := stream.Recv()
		if ended(ctx, err) {
			return nil
		}
		if err != nil {
			return fromStatus(err)
		}
		r, err := decode[status.Report](m.GetReport())
		if err != nil {
			return err
		}
		if err := see(r); err != nil {
			return err
		}
	}
}

// ended says that a stream is over because its ctx is. The service learns of a
// deadline and may be the first to say so.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil || grpcstatus.Code(err) == codes.DeadlineExceeded
}

func ids(names []string) []enroll.ID {
	made := make([]enroll.ID, 0, len(names))
	for _, name := range names {
		made = append(made, enroll.ID(name))
	}
	return made
}

// Decide gives the person's verdict on what waits for it. The target is an
// enrollment's ID, a mailbox, [All], or empty for all of the caller's own. It
// returns what was moved.
func (c *Client) Decide(ctx context.Context, target string, v enroll.Verdict) ([]enroll.ID, error) {
	r, err := c.api.Decide(ctx, &localv1.DecideRequest{Target: target, Verdict: string(v)})
	return ids(r.GetEnrollments()), fromStatus(err)
}

// Renew asks for new certificates; the target is as in [Client.Decide].
func (c *Client) Renew(ctx context.Context, target string) ([]enroll.ID, error) {
	r, err := c.api.Renew(ctx, &localv1.RenewRequest{Target: target})
	return ids(r.GetEnrollments()), fromStatus(err)
}

// Confirm hands in a code that was mailed to a mailbox; the target is as in [Client.Decide].
func (c *Client) Confirm(ctx context.Context, target, code string) ([]enroll.ID, error) {
	r, err := c.api.Confirm(ctx, &localv1.ConfirmRequest{Target: target, Code: code})
	return ids(r.GetEnrollments()), fromStatus(err)
}

// Prove proves keys now; the target is as in [Client.Decide].
func (c *Client) Prove(ctx context.Context, target string) ([]enroll.ID, error) {
	r, err := c.api.Prove(ctx, &localv1.ProveRequest{Target: target})
	return ids(r.GetEnrollments()), fromStatus(err)
}

// Sync lets the service ask central management, and waits for its answer.
func (c *Client) Sync(ctx context.Context) error {
	_, err := c.api.Sync(ctx, &localv1.SyncRequest{})
	return fromStatus(err)
}

// Diagnose runs the service's own checks.
func (c *Client) Diagnose(ctx context.Context) (status.Checks, error) {
	r, err := c.api.Diagnose(ctx, &localv1.DiagnoseRequest{})
	if err != nil {
		return status.Checks{}, fromStatus(err)
	}
	return decode[status.Checks](r.GetReport())
}

// Settings gives the settings in force; secrets are masked.
func (c *Client) Settings(ctx context.Context) (status.Settings, error) {
	r, err := c.api.Settings(ctx, &localv1.SettingsRequest{})
	if err != nil {
		return status.Settings{}, fromStatus(err)
	}
	return decode[status.Settings](r.GetReport())
}
