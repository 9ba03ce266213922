package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// Joined is this device in central management.
type Joined struct {
	DeviceID     string
	Organization string
	// New: this call joined with the token, which can now be forgotten.
	New bool
	// RenewAt is when [Client.RenewIdentity] will renew.
	NotBefore, RenewAt, NotAfter time.Time
}

// EnsureJoined gives the device's identity, and joins if there is none, if it
// belongs to another machine, or if the server no longer takes it. It needs no
// network if all is well. An identity is replaced only once there is another.
// Errors have, beside those of the way, [CodeNotJoined], [CodeMachineCloned],
// [CodeTokenRefused], [CodeDevicePending], [CodeDeviceRefused],
// [CodeIdentityExpired], [CodeIdentityRefused], [CodeSecretsFailed].
func (c *Client) EnsureJoined(ctx context.Context) (Joined, error) {
	if err := c.holdIdentity(ctx); err != nil {
		return Joined{}, err
	}
	defer func() { <-c.joining }()
	r, broken, err := c.load(ctx)
	if err != nil {
		c.note(sourceIdentity, enroll.AsError(err))
		return Joined{}, err
	}
	token := ""
	if c.cfg.Token != nil {
		token = c.cfg.Token()
	}
	why := c.unusable(r, broken)
	c.note(sourceIdentity, why)
	switch {
	case why == nil && (token == "" || !c.isRefused(r.identity)):
		// Without a token a refused identity stays in use: it is the only one,
		// and an administrator may admit the device again.
		c.take(r.identity)
		return r.identity.joined(false), nil
	case token == "":
		return Joined{}, why
	}
	return c.join(ctx, r, token)
}

func (c *Client) holdIdentity(ctx context.Context) error {
	select {
	case c.joining <- struct{}{}:
		return nil
	case <-ctx.Done():
		return interrupted(ctx.Err())
	}
}

// unusable is nil if there is an identity of this machine.
func (c *Client) unusable(r ring, broken error) *enroll.Error {
	switch {
	case broken != nil:
		return &enroll.Error{Kind: enroll.Waiting, Code: CodeNotJoined, Err: broken,
			Hint: "This machine's identity cannot be read. Give it a new join token."}
	case r.identity == nil:
		return &enroll.Error{Kind: enroll.Waiting, Code: CodeNotJoined, Err: errors.New("no identity and no token"),
			Hint: "This machine has not joined central management. Give it a join token."}
	case cloned(r.identity.machine, c.cfg.Facts.MachineIDHash):
		return &enroll.Error{Kind: enroll.Waiting, Code: CodeMachineCloned, Err: errors.New("identity was made on another machine"),
			Hint: "This machine is a copy of another one and does not use its identity. Give it a join token of its own."}
	}
	return nil
}

// isRefused says that the server refused this identity, and not one before it.
func (c *Client) isRefused(id *identity) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused == id.name()
}

// cloned compares hashes of machine IDs; an unknown one tells nothing.
func cloned(made, here string) bool { return made != "" && here != "" && made != here }

func (id *identity) joined(fresh bool) Joined {
	return Joined{id.device, id.organization, fresh, id.leaf.NotBefore, id.renewAt(), id.leaf.NotAfter}
}

// take makes id the one that calls are made with.
func (c *Client) take(id *identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity == nil || c.identity.name() != id.name() {
		c.identity = id
	}
}

func (c *Client) join(ctx context.Context, r ring, token string) (Joined, error) {
	if len(token) > 256 {
		return Joined{}, c.failed(nil, &enroll.Error{Kind: enroll.Waiting, Code: CodeTokenRefused,
			Hint: "The join token is longer than any token." + newToken, Err: fmt.Errorf("token of %d bytes", len(token))})
	}
	machine, hash := c.cfg.Facts.MachineIDHash, tokenHash(token)
	if n := r.next; n == nil || n.purpose != "join" || n.machine != machine || n.token != hash {
		var err error
		if r.next, err = c.prepare(ctx, r, "join", hash); err != nil {
			return Joined{}, err
		}
	}
	var resp *controlv1.JoinResponse
	err := c.exchange(ctx, nil, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.Join(ctx, &controlv1.JoinRequest{Token: token, Csr: r.next.csr, Facts: c.facts()})
		return resp.GetServerTime(), err
	})
	if err != nil {
		c.note(sourceIdentity, enroll.AsError(err))
		c.forgetUseless(ctx, r, err)
		return Joined{}, err
	}
	id := &identity{
		device: clean(resp.GetDeviceId(), 256), organization: clean(resp.GetOrganization(), 256), machine: machine,
	}
	if err := c.adopt(ctx, r.next, id, resp.GetChain()); err != nil {
		c.note(sourceIdentity, enroll.AsError(err))
		return Joined{}, err
	}
	return id.joined(true), nil
}

// forgetUseless drops the key of a join if it is the key that is refused;
// otherwise the same key would be refused for ever.
func (c *Client) forgetUseless(ctx context.Context, r ring, err error) {
	if !reasonIs(err, controlv1.Reason_REASON_CSR_INVALID, controlv1.Reason_REASON_CSR_CHANGED,
		controlv1.Reason_REASON_KEY_REUSED, controlv1.Reason_REASON_KEY_UNSUITABLE) {
		return
	}
	if r.next = nil; r.identity == nil {
		_ = c.cfg.Secrets.Delete(ctx, SecretName) // the next join tries to replace it anyway
		return
	}
	_ = c.store(ctx, r)
}

// prepare makes a key and its CSR, and stores them before they are used.
func (c *Client) prepare(ctx context.Context, r ring, purpose, token string) (*request, error) {
	next, err := newRequest(purpose, c.cfg.Facts.MachineIDHash, token)
	if err != nil {
		return nil, c.failed(nil, &enroll.Error{Kind: enroll.Transient, Code: enroll.CodeInternal, Err: err})
	}
	r.next = next
	if err := c.store(ctx, r); err != nil {
		c.note(sourceIdentity, enroll.AsError(err))
		return nil, err
	}
	return next, nil
}

// adopt makes the answered request the identity: stored first, used then.
func (c *Client) adopt(ctx context.Context, from *request, id *identity, chain [][]byte) error {
	leaf, err := from.check(chain)
	if err != nil {
		return c.failed(nil, err)
	}
	id.key, id.chain, id.leaf = from.key, chain, leaf
	if err := c.store(ctx, ring{identity: id}); err != nil {
		return err
	}
	c.take(id)
	c.note(sourceIdentity, nil)
	return nil
}

// RenewIdentity renews the identity if it is due, which is from about half of
// its life on; it says whether it did. An identity that has ended is still
// presented: for how long that is enough is the server's to decide. Until the
// new one is stored the old one stays in use.
func (c *Client) RenewIdentity(ctx context.Context) (bool, error) {
	if err := c.holdIdentity(ctx); err != nil {
		return false, err
	}
	defer func() { <-c.joining }()
	r, broken, err := c.load(ctx)
	if err != nil {
		return false, err
	}
	if why := c.unusable(r, broken); why != nil {
		return false, why
	}
	c.take(r.identity)
	if c.now().Before(r.identity.renewAt()) {
		return false, nil
	}
	if n := r.next; n == nil || n.purpose != "renew" {
		if r.next, err = c.prepare(ctx, r, "renew", ""); err != nil {
			return false, err
		}
	}
	var resp *controlv1.RenewIdentityResponse
	err = c.exchange(ctx, r.identity, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		var err error
		resp, err = stub.RenewIdentity(ctx, &controlv1.RenewIdentityRequest{Csr: r.next.csr})
		return resp.GetServerTime(), err
	})
	if err != nil {
		c.forgetUseless(ctx, r, err)
		return false, err
	}
	id := &identity{device: r.identity.device, organization: r.identity.organization, machine: r.identity.machine}
	if id.machine == "" {
		id.machine = c.cfg.Facts.MachineIDHash
	}
	return true, c.adopt(ctx, r.next, id, resp.GetChain())
}

// known gives the identity for a call, without joining.
func (c *Client) known(ctx context.Context) (*identity, error) {
	c.mu.Lock()
	id := c.identity
	c.mu.Unlock()
	if id != nil {
		return id, nil
	}
	r, broken, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if why := c.unusable(r, broken); why != nil {
		why = &enroll.Error{Kind: enroll.Transient, Code: why.Code, Hint: why.Hint, Err: why.Err}
		c.note(sourceIdentity, why)
		return nil, why
	}
	c.take(r.identity)
	return r.identity, nil
}
