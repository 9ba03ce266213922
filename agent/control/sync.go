package control

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// Presence is an account that is known on this device.
type Presence struct {
	// User is the system's identity of the account: "uid:1000", a SID.
	User    string
	Account string
	// UPN is empty where the system knows none.
	UPN string
	// Present says that a helper is attached now.
	Present bool
	// Locale is a BCP 47 tag.
	Locale string
	Stores []enroll.StoreFound
}

// SyncInput is what is here.
type SyncInput struct {
	Users       []Presence
	Enrollments []enroll.Enrollment
	Conditions  []Condition
	// Revision of the policy that is in force; empty at first.
	Revision string
	// Rebuild asks for what central management has of this device.
	Rebuild bool
	// Published are the SHA-256 of the values for the directory that are held.
	Published map[enroll.ID][]byte
	// Partners is the digest of the partners' certificates in force.
	Partners string
}

// SyncResult is what to do.
type SyncResult struct {
	// Policy is nil if the one in force stays: because nothing changed, or
	// because the new one is unusable, which PolicyProblem then says.
	Policy        *enroll.Policy
	PolicyProblem *enroll.Error
	// NextSync is when to call again. The server spreads its devices; add no jitter.
	NextSync time.Duration
	Orders   []Order
	// Known is only for Rebuild.
	Known []Known
	// Ready are references whose Collect would now give an answer.
	Ready []string
	// Publish are enrollments whose value for the directory is wanted.
	Publish []enroll.ID
	// Partners is nil if those in force stay.
	Partners *Partners
	// Offset is the server's time minus this machine's.
	Offset time.Duration
}

// OrderKind is what an [Order] wants.
type OrderKind string

// The orders. Those that this agent does not know are left out.
const (
	OrderRenew   OrderKind = "renew"
	OrderRevoked OrderKind = "revoked"
	OrderProve   OrderKind = "prove"
)

// Order is something to do once.
type Order struct {
	ID   string
	Kind OrderKind
	// Enrollment is empty for [OrderProve], which is for all.
	Enrollment enroll.ID
	// Reason and At are of a revocation.
	Reason string
	At     time.Time
}

// Known is central management's record of a request of this device.
type Known struct {
	ID        enroll.ID
	Reference string
	User      string
	Mailboxes []string
	Profile   string
	Store     string
	CSR       []byte
	// Chain is empty while not issued.
	Chain     [][]byte
	Submitted time.Time
	Refused   bool
	Replaces  enroll.ID
}

// Sync reports what is here and learns what to do.
func (c *Client) Sync(ctx context.Context, in SyncInput) (SyncResult, error) {
	id, err := c.known(ctx)
	if err != nil {
		return SyncResult{}, err
	}
	req := c.syncRequest(in)
	var resp *controlv1.SyncResponse
	err = c.exchange(ctx, id, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.Sync(ctx, req)
		return resp.GetServerTime(), err
	})
	if err != nil {
		return SyncResult{}, err
	}
	out, err := syncResult(resp, in.Revision)
	if err != nil {
		return SyncResult{}, c.failed(nil, err)
	}
	c.note(sourcePolicy, out.PolicyProblem)
	out.Offset = c.Offset()
	return out, nil
}

// Awaited is the answer to [Client.Await].
type Awaited struct {
	// Sync: a call of [Client.Sync] would bring something new.
	Sync  bool
	Ready []string
}

// maxHold is the longest wait that the contract knows.
const maxHold = 60 * time.Second

// Await holds a call open for at most hold (at most 60 s) until something that
// concerns this device has changed. It is for the time while answers are
// awaited; an idle device polls.
func (c *Client) Await(ctx context.Context, hold time.Duration, revision string, references []string) (Awaited, error) {
	id, err := c.known(ctx)
	if err != nil {
		return Awaited{}, err
	}
	hold = between(hold, 0, maxHold)
	var resp *controlv1.AwaitResponse
	err = c.exchange(ctx, id, hold+15*time.Second, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.Await(ctx, &controlv1.AwaitRequest{
			MaxWait: durationpb.New(hold), PolicyRevision: revision, References: references,
		})
		return nil, err
	})
	if err != nil {
		return Awaited{}, err
	}
	ready := resp.GetReady()
	return Awaited{resp.GetSync(), ready[:min(len(ready), maxReferences)]}, nil
}

// AuditEvent is an event with the ID by which a repetition is known.
type AuditEvent struct {
	ID    string
	Event enroll.Event
}

// eventsPerCall bounds one message of events.
const eventsPerCall = 100

// Report hands events in, and gives the IDs of those that are durably recorded,
// also beside an error.
func (c *Client) Report(ctx context.Context, events []AuditEvent) ([]string, error) {
	id, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	var recorded []string
	for part := range slices.Chunk(events, eventsPerCall) {
		req := &controlv1.ReportRequest{}
		for _, e := range part {
			req.Events = append(req.Events, eventOut(e))
		}
		err := c.exchange(ctx, id, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
			resp, err := stub.Report(ctx, req)
			for _, done := range resp.GetRecorded() {
				if slices.ContainsFunc(part, func(e AuditEvent) bool { return e.ID == done }) {
					recorded = append(recorded, done)
				}
			}
			return nil, err
		})
		if err != nil {
			return recorded, err
		}
	}
	return recorded, nil
}
