package control

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// maxCSR is the contract's bound.
const maxCSR = 16 << 10

// maxEarly bounds the outcomes that came with a receipt and wait for Collect.
const maxEarly = 64

// outcome is what became of a submission.
type outcome struct {
	collection enroll.Collection
	err        error
}

// Submit hands in a CSR; it may be repeated with the same one. If the outcome
// comes with the receipt, [Client.Collect] gives it without another call.
func (c *Client) Submit(ctx context.Context, s enroll.Submission) (enroll.Receipt, error) {
	if len(s.CSR) == 0 || len(s.CSR) > maxCSR {
		return enroll.Receipt{}, &enroll.Error{Kind: enroll.Final, Code: enroll.CodeControlRejected,
			Hint: "The request is too large for central management." + askAdmin, Err: fmt.Errorf("CSR of %d bytes", len(s.CSR))}
	}
	id, err := c.known(ctx)
	if err != nil {
		return enroll.Receipt{}, err
	}
	var resp *controlv1.SubmitResponse
	err = c.exchange(ctx, id, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.Submit(ctx, submissionOut(s))
		return resp.GetServerTime(), err
	})
	if err != nil {
		return enroll.Receipt{}, err
	}
	ref := resp.GetReference()
	if ref == "" || len(ref) > maxText {
		return enroll.Receipt{}, c.failed(nil, fmt.Errorf("%w: reference of %d bytes", errAnswer, len(ref)))
	}
	if resp.GetOutcome() != nil {
		c.keepEarly(ref, resp.GetOutcome())
	}
	return enroll.Receipt{Reference: ref}, nil
}

// keepEarly keeps an outcome that is one; "pending" is asked for again.
func (c *Client) keepEarly(ref string, answer *controlv1.CollectResponse) {
	switch answer.GetOutcome().(type) {
	case *controlv1.CollectResponse_Issued, *controlv1.CollectResponse_Refused:
	default:
		return
	}
	collection, err := collectionIn(answer)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.early) < maxEarly {
		c.early[ref] = outcome{collection, err}
	}
}

// Collect asks what became of a submission. A refusal is an *[enroll.Error] of
// kind [enroll.Final].
func (c *Client) Collect(ctx context.Context, reference string) (enroll.Collection, error) {
	c.mu.Lock()
	early, ok := c.early[reference]
	delete(c.early, reference)
	c.mu.Unlock()
	if ok {
		return early.collection, c.refusal(early.err)
	}
	id, err := c.known(ctx)
	if err != nil {
		return enroll.Collection{}, err
	}
	var resp *controlv1.CollectResponse
	err = c.exchange(ctx, id, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.Collect(ctx, &controlv1.CollectRequest{Reference: reference})
		return resp.GetServerTime(), err
	})
	if err != nil {
		return enroll.Collection{}, err
	}
	collection, err := collectionIn(resp)
	return collection, c.refusal(err)
}

// Confirm hands in the code that was mailed for a submission. A wrong or old one
// is an *[enroll.Error] with [enroll.CodeChallengePending]. What comes of the
// right one, the next [Client.Collect] gives.
func (c *Client) Confirm(ctx context.Context, reference, code string) error {
	id, err := c.known(ctx)
	if err != nil {
		return err
	}
	var resp *controlv1.ConfirmResponse
	err = c.exchange(ctx, id, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.Confirm(ctx, &controlv1.ConfirmRequest{Reference: reference, Code: code})
		return resp.GetOutcome().GetServerTime(), err
	})
	if err == nil {
		c.keepEarly(reference, resp.GetOutcome())
	}
	return err
}

func (c *Client) refusal(err error) error {
	if err == nil {
		return nil
	}
	return c.failed(nil, err)
}
