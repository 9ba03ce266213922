package server

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/crl"
	"smime-agent/server-stub/filter"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/store"
)

// ledgerChunk is how many entries go in one message.
const ledgerChunk = 100

// ListLedger streams the record of all certificates, oldest first.
func (a *admin) ListLedger(req *controlv1.ListLedgerRequest, stream grpc.ServerStreamingServer[controlv1.ListLedgerResponse]) error {
	words := []string{ledger.Valid, ledger.Expired, ledger.Revoked, ledger.Replaced}
	for _, word := range req.GetStatuses() {
		if !slices.Contains(words, word) {
			return status.Errorf(codes.InvalidArgument, "%q is no status of a certificate; use one of these: %s.", word, strings.Join(words, ", "))
		}
	}
	var until time.Time
	if req.GetExpiringWithin() != nil {
		until = a.now().Add(req.GetExpiringWithin().AsDuration())
	}
	var from []byte
	for {
		entries, next, err := a.ledgerPage(from, until, req)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			if err := stream.Send(&controlv1.ListLedgerResponse{Entries: entries}); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// ledgerPage reads a part, so that no transaction is held open while a slow
// client reads: bbolt could not reuse pages all that time.
func (a *admin) ledgerPage(from []byte, until time.Time, req *controlv1.ListLedgerRequest) (entries []*controlv1.LedgerEntry, next []byte, err error) {
	err = a.store.View(func(tx store.Tx) (err error) {
		entries = nil
		next, err = ledger.Page(tx, from, ledgerChunk, a.now(), func(entry *controlv1.LedgerEntry, _ *ledger.View) bool {
			if !filter.Entry(req, entry) || !until.IsZero() && !endsBy(entry, until) {
				return true
			}
			if !req.GetWithCertificate() {
				entry.Certificate = nil
			}
			entries = append(entries, entry)
			return true
		})
		return err
	})
	return entries, next, err
}

// endsBy picks what somebody should look after: in force, and soon to end.
func endsBy(e *controlv1.LedgerEntry, until time.Time) bool {
	return e.GetStatus() == ledger.Valid && !e.GetNotAfter().AsTime().After(until)
}

// reasonWords are those that [ca.KnownReason] knows.
const reasonWords = "keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn, unspecified"

// Revoke puts a certificate on the revocation list and tells its device.
// Revoking twice keeps the first time and reason.
func (a *admin) Revoke(ctx context.Context, req *controlv1.RevokeRequest) (*controlv1.RevokeResponse, error) {
	reason := req.GetReason()
	if reason == "" {
		reason = "unspecified"
	}
	if !ca.KnownReason(reason) {
		return nil, status.Errorf(codes.InvalidArgument,
			"%q is no reason; use one of these: %s.", reason, reasonWords)
	}
	missing := status.Errorf(codes.NotFound, "There is no certificate %q; \"ledger\" shows them.", req.GetSerial())
	serial, err := ca.ParseSerial(req.GetSerial())
	if err != nil {
		return nil, missing
	}
	var device string
	err = a.store.Update(ctx, func(tx store.Tx) error {
		record, err := ledger.RequestOf(tx, serial)
		if err != nil {
			return err
		}
		if record == nil || record.State != store.RequestIssued {
			return missing
		}
		device = record.Device
		return a.revoke(tx, serial, record, reason)
	})
	if err != nil {
		return nil, err
	}
	a.desk.Poke()
	a.fleet.wake(device)
	return &controlv1.RevokeResponse{}, nil
}

func (a *admin) revoke(tx store.Tx, serial ca.Serial, record *store.Request, reason string) error {
	if record.Authority != "" {
		return errElsewhere(record)
	}
	cert, err := x509.ParseCertificate(record.Certificate)
	if err != nil {
		return err
	}
	var mark store.Mark
	if _, err := store.GetJSON(tx, store.Marks, serial[:], &mark); err != nil {
		return err
	}
	if !mark.RevokedAt.IsZero() {
		return nil
	}
	now := a.now()
	mark.RevokedAt, mark.Reason, mark.NotAfter = now, reason, cert.NotAfter
	if err := errors.Join(store.PutJSON(tx, store.Marks, serial[:], mark), crl.NoteRevoked(tx)); err != nil {
		return err
	}
	tellChanged(tx, record.Device)
	return orders.Put(tx, record.Device, &controlv1.Order{
		Id: newDeviceID(now),
		What: &controlv1.Order_Revoked{Revoked: &controlv1.RevokedOrder{
			EnrollmentId: record.Enrollment, Reason: reason, At: timestamppb.New(now),
		}},
	}, now)
}

// GetCertificate gives one certificate, and what happened to it and to those
// that it follows and that follow it.
func (a *admin) GetCertificate(_ context.Context, req *controlv1.GetCertificateRequest) (*controlv1.GetCertificateResponse, error) {
	missing := status.Errorf(codes.NotFound, "There is no certificate %q; \"ledger\" shows them.", req.GetSerial())
	serial, err := ca.ParseSerial(req.GetSerial())
	if err != nil {
		return nil, missing
	}
	resp := &controlv1.GetCertificateResponse{}
	err = a.store.View(func(tx store.Tx) error {
		var err error
		if resp.Entry, resp.History, err = ledger.History(tx, serial, a.now()); err == nil && resp.GetEntry() == nil {
			err = missing
		}
		return err
	})
	return resp, err
}
