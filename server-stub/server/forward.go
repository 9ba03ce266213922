package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/authority"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/store"
)

// External is another CA than the server's own.
type External struct {
	authority.Authority
	// Anchors (DER) are what agents are told to trust for it.
	Anchors [][]byte
}

const (
	// forwardTime bounds one question, forwardRetry is the pause after a failure.
	forwardTime  = 90 * time.Second
	forwardRetry = time.Minute
	// forwardWrong is the pause after an answer that is not what was ordered: the CA
	// may have issued something, and would again.
	forwardWrong = 10 * time.Minute
	// forwardSoon is when an agent asks again for what is on its way.
	forwardSoon = 5 * time.Second
)

// forward asks the CA beside the call, and answers that it waits: what comes is
// announced as any other answer is.
func (s *Server) forward(serial ca.Serial, r *store.Request) *controlv1.CollectResponse {
	if now := s.now(); s.forwards.Take(serial.String(), now, forwardTime) {
		s.background(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, forwardTime)
			defer cancel()
			s.forwards.Put(serial.String(), s.askPaced(ctx, serial, r))
		})
	}
	return &controlv1.CollectResponse{
		ServerTime: timestamppb.New(s.now()),
		Outcome: &controlv1.CollectResponse_Pending{Pending: &controlv1.Pending{
			RetryAfter: durationpb.New(forwardSoon), WaitsFor: "authority",
		}},
	}
}

// askPaced asks the CA if no other server is at it, and not before the CA wants
// to be asked again. It gives the moment of the next question; zero once it is settled.
func (s *Server) askPaced(ctx context.Context, serial ca.Serial, r *store.Request) time.Time {
	var until time.Time
	open := false
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		record, err := ledger.RequestOf(tx, serial)
		if open = err == nil && record != nil && record.State == store.RequestForwarded; !open {
			return err
		}
		until = time.Time{}
		if _, err := store.GetJSON(tx, store.Forwards, serial[:], &until); err != nil || now.Before(until) {
			return err
		}
		until = time.Time{}
		return store.PutJSON(tx, store.Forwards, serial[:], now.Add(forwardTime))
	})
	switch {
	case err != nil:
		s.log.Error("request cannot be forwarded", "reference", serial.String(), "error", err)
		return s.now().Add(forwardRetry)
	case !open:
		return time.Time{}
	case !until.IsZero():
		return until
	}
	next := s.askAuthority(ctx, serial, r)
	if next.IsZero() {
		return next
	}
	err = s.store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return store.PutJSON(tx, store.Forwards, serial[:], next) })
	if err != nil {
		s.log.Error("next question to the authority cannot be noted", "reference", serial.String(), "error", err)
	}
	return next
}

// askAuthority gives the moment of the next question; zero once it is settled.
func (s *Server) askAuthority(ctx context.Context, serial ca.Serial, r *store.Request) time.Time {
	external, ok := s.externals[r.Authority]
	csr, err := ca.ParseCSR(r.CSR)
	if err != nil || !ok {
		s.log.Error("request cannot be forwarded", "reference", serial.String(), "authority", r.Authority, "error", err)
		return s.now().Add(forwardRetry)
	}
	answer, err := external.Collect(ctx, authority.Order{CSR: r.CSR, Key: csr.PublicKey, Mailboxes: r.Mailboxes, Renewal: r.Replaces != ""})
	settled := closed(r)
	switch {
	case errors.Is(err, authority.ErrRefused):
		s.log.Warn("authority refuses", "reference", serial.String(), "authority", r.Authority, "error", err)
		settled.State, settled.Refusal = store.RequestRefused, "The certification authority refused the request."
	case err != nil:
		s.log.Error("authority gives no certificate", "reference", serial.String(), "authority", r.Authority, "error", err)
		if errors.Is(err, authority.ErrAnswer) {
			return s.now().Add(forwardWrong)
		}
		return s.now().Add(forwardRetry)
	case len(answer.Chain) == 0:
		return s.now().Add(answer.RetryAfter)
	default:
		settled.State, settled.Certificate = store.RequestIssued, answer.Chain[0].Raw
		for _, issuer := range answer.Chain[1:] {
			settled.Issuers = append(settled.Issuers, issuer.Raw)
		}
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if err := stillIn(tx, serial, store.RequestForwarded); err != nil {
			return err
		}
		return errors.Join(tx.Delete(store.Forwards, serial[:]), conclude(tx, serial, settled))
	})
	if err != nil {
		s.log.Error("authority's answer cannot be recorded", "reference", serial.String(), "error", err)
		return s.now().Add(forwardRetry)
	}
	s.fleet.wake(r.Device)
	return time.Time{}
}

// errElsewhere: what another CA issued is on its list, not on ours.
func errElsewhere(r *store.Request) error {
	return status.Errorf(codes.FailedPrecondition, "The certificate is of the CA %q; revoke it there.", r.Authority)
}
