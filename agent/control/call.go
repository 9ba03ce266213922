package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
)

// rpc is one call; it gives the server's time out of the answer, nil if it has none.
type rpc func(context.Context, controlv1.ControlServiceClient) (*timestamppb.Timestamp, error)

// exchange makes one call as id (nil for nobody), within timeout. A call that
// fails on a kept connection, which the server may have closed meanwhile, is
// made once more on a new one: every call may be repeated. What comes back is
// an *enroll.Error, and what it means for the device is remembered.
func (c *Client) exchange(ctx context.Context, id *identity, timeout time.Duration, fn rpc) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		kept, err := c.once(limited, id, fn)
		if err == nil {
			c.succeeded(id)
			return nil
		}
		if kept && status.Code(err) == codes.Unavailable && limited.Err() == nil && !hasReason(err) {
			continue
		}
		if ctx.Err() != nil {
			return interrupted(ctx.Err())
		}
		return c.failed(id, err)
	}
}

func (c *Client) once(ctx context.Context, id *identity, fn rpc) (kept bool, err error) {
	l, kept, err := c.acquire(ctx, id)
	if err != nil {
		return false, err
	}
	sent := c.cfg.Now()
	server, err := fn(ctx, l.stub)
	received := c.cfg.Now()
	if alert := l.conn.refusal(); err != nil && alert != nil {
		err = &dialError{stage: stageIdentity, hop: c.cfg.Address, err: alert}
	}
	c.release(l, breaksLink(err))
	if err == nil && server != nil {
		c.clock.observe(server.AsTime(), sent, received)
	}
	return kept, err
}

// breaksLink says that err is of the connection and not of the call. A deadline
// that passed may be a black hole: the next call takes another connection.
func breaksLink(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*dialError](err); ok {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return !hasReason(err)
	case codes.Canceled, codes.Unknown, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists,
		codes.PermissionDenied, codes.ResourceExhausted, codes.FailedPrecondition, codes.Aborted,
		codes.OutOfRange, codes.Unimplemented, codes.Internal, codes.DataLoss, codes.Unauthenticated, codes.OK:
		return false
	}
	return false
}

func (c *Client) succeeded(id *identity) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if id != nil {
		c.refused = ""
	}
	c.contact = now
	delete(c.troubles, sourceCall)
}
