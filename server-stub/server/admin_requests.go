package server

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/challenge"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

// maxRequests bounds a listing that has no pages.
const maxRequests = 10_000

// ListRequests lists what waits for an administrator, or all requests.
func (a *admin) ListRequests(_ context.Context, req *controlv1.ListRequestsRequest) (*controlv1.ListRequestsResponse, error) {
	resp := &controlv1.ListRequestsResponse{}
	bucket := store.Pending
	if req.GetAll() {
		bucket = store.Certificates
	}
	var failed error
	err := a.store.View(func(tx store.Tx) error {
		tx.Range(bucket, nil, nil, func(key, _ []byte) bool {
			var serial ca.Serial
			copy(serial[:], key)
			record, err := ledger.RequestOf(tx, serial)
			if err != nil || record == nil {
				failed = errors.Join(err, errors.New("list requests: a record is damaged"))
				return false
			}
			info := requestInfo(serial, record)
			if record.State == store.RequestChallenge {
				if info.Checks, failed = challenge.Checks(tx, serial); failed != nil {
					return false
				}
			}
			resp.Requests = append(resp.Requests, info)
			return len(resp.GetRequests()) < maxRequests
		})
		return failed
	})
	return resp, err
}

func requestInfo(serial ca.Serial, r *store.Request) *controlv1.RequestInfo {
	info := &controlv1.RequestInfo{
		Reference: serial.String(), DeviceId: r.Device, EnrollmentId: r.Enrollment, User: r.User,
		Mailboxes: r.Mailboxes, Profile: r.Profile, Submitted: timestamppb.New(r.Submitted), State: r.State,
	}
	if cert, err := x509.ParseCertificate(r.Certificate); err == nil {
		info.Mailboxes = cert.EmailAddresses
	}
	return info
}

// DecideRequest approves or refuses a request that waits.
func (a *admin) DecideRequest(ctx context.Context, req *controlv1.DecideRequestRequest) (*controlv1.DecideRequestResponse, error) {
	reason := strings.TrimSpace(req.GetReason())
	if !req.GetApprove() && (reason == "" || len(reason) > maxText) {
		return nil, status.Error(codes.InvalidArgument, "A refusal needs a reason for the employee: one sentence of at most 512 bytes.")
	}
	serial, record, err := a.waiting(req.GetReference())
	if err != nil {
		return nil, err
	}
	settled := closed(record)
	settled.State, settled.Refusal = store.RequestRefused, reason
	if req.GetApprove() {
		if settled, err = a.issueWaiting(ctx, serial, record); err != nil {
			return nil, err
		}
	}
	err = a.store.Update(ctx, func(tx store.Tx) error { return settle(tx, serial, settled) })
	if err != nil {
		return nil, err
	}
	a.fleet.wake(record.Device)
	return &controlv1.DecideRequestResponse{}, nil
}

func (a *admin) waiting(reference string) (ca.Serial, *store.Request, error) {
	serial, err := ca.ParseSerial(reference)
	if err != nil {
		return serial, nil, status.Errorf(codes.NotFound, "There is no request %q; \"requests\" shows them.", reference)
	}
	var record *store.Request
	err = a.store.View(func(tx store.Tx) error {
		record, err = ledger.RequestOf(tx, serial)
		return err
	})
	if err != nil {
		return serial, nil, err
	}
	return serial, record, stillWaiting(record)
}

func stillWaiting(record *store.Request) error {
	if record == nil {
		return status.Error(codes.NotFound, "There is no such request; \"requests\" shows them.")
	}
	if record.State != store.RequestPending {
		return status.Errorf(codes.FailedPrecondition, "The request is %s already.", record.State)
	}
	return nil
}

// closed is a request that waits for nothing any more.
func closed(r *store.Request) *store.Request {
	settled := *r
	settled.CSR, settled.Mailboxes, settled.Account = nil, nil, ""
	return &settled
}

// issueWaiting judges anew what policy gives: it may have changed since. Another
// CA's request goes on to it.
func (s *Server) issueWaiting(ctx context.Context, serial ca.Serial, r *store.Request) (*store.Request, error) {
	p, grant, err := s.waitingGrant(r)
	if err != nil {
		return nil, err
	}
	if name := p.Profiles[r.Profile].CA; name != "" {
		forwarded := *r
		forwarded.State, forwarded.Authority = store.RequestForwarded, name
		return &forwarded, nil
	}
	profile, ok := ca.ProfileByName(r.Profile)
	if !ok {
		return nil, errGone()
	}
	csr, err := ca.ParseCSR(r.CSR)
	if err != nil {
		return nil, err
	}
	der, err := s.issuer.Issue(ctx, ca.Wanted{
		Serial: serial, Profile: profile, Subject: subjectFor(p, grant), Key: csr.PublicKey, Now: s.now(),
	})
	if refused, ok := errors.AsType[*lint.Error](err); ok {
		return nil, status.Error(codes.FailedPrecondition, refused.Error())
	}
	if err != nil {
		return nil, err
	}
	settled := closed(r)
	settled.State, settled.Certificate = store.RequestIssued, der
	return settled, nil
}

func errGone() error {
	return status.Error(codes.FailedPrecondition, "Policy no longer gives this person this certificate; refuse the request, or change the policy.")
}

// waitingGrant finds what a request that waits was granted by.
func (s *Server) waitingGrant(r *store.Request) (*policy.Policy, policy.Grant, error) {
	force := s.current.Load()
	if force == nil {
		return nil, policy.Grant{}, errGone()
	}
	for _, grant := range force.policy.Grants(r.Account, "") {
		if grant.Profile == r.Profile && sameMailboxes(grant.Person.Mailboxes, r.Mailboxes) {
			return force.policy, grant, nil
		}
	}
	return nil, policy.Grant{}, errGone()
}

func settle(tx store.Tx, serial ca.Serial, settled *store.Request) error {
	now, err := ledger.RequestOf(tx, serial)
	if err != nil {
		return err
	}
	if err := stillWaiting(now); err != nil {
		return err
	}
	return conclude(tx, serial, settled)
}

// conclude files the certificate or the refusal of a request that waited.
func conclude(tx store.Tx, serial ca.Serial, settled *store.Request) error {
	if err := tx.Put(store.Certificates, serial[:], settled.Encode()); err != nil {
		return err
	}
	if err := tx.Delete(store.Pending, serial[:]); err != nil {
		return err
	}
	tellChanged(tx, settled.Device)
	if err := tx.Put(store.Ready, append([]byte(settled.Device), serial[:]...), []byte{1}); err != nil {
		return err
	}
	if settled.State != store.RequestIssued {
		return nil
	}
	return supersede(tx, serial, settled)
}
