package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/filter"
	"smime-agent/server-stub/orders"
	"smime-agent/server-stub/store"
)

// ledgerChunk is how many entries go in one message.
const ledgerChunk = 100

// The states of a certificate in the ledger.
const (
	statusValid    = "valid"
	statusExpired  = "expired"
	statusRevoked  = "revoked"
	statusReplaced = "replaced"
)

// ListLedger streams the record of all certificates, oldest first.
func (a *admin) ListLedger(req *controlv1.ListLedgerRequest, stream grpc.ServerStreamingServer[controlv1.ListLedgerResponse]) error {
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
	reports := map[string]*deviceView{}
	seen := 0
	err = a.store.View(func(tx store.Tx) error {
		var failed error
		tx.Range(store.Certificates, nil, from, func(key, value []byte) bool {
			if seen == ledgerChunk {
				next = append([]byte(nil), key...)
				return false
			}
			seen++
			var entry *controlv1.LedgerEntry
			if entry, failed = a.ledgerEntry(tx, key, value, reports); failed != nil {
				return false
			}
			if entry == nil || !filter.Entry(req, entry) || !until.IsZero() && !endsBy(entry, until) {
				return true
			}
			if !req.GetWithCertificate() {
				entry.Certificate = nil
			}
			entries = append(entries, entry)
			return true
		})
		return failed
	})
	return entries, next, err
}

// endsBy picks what somebody should look after: in force, and soon to end.
func endsBy(e *controlv1.LedgerEntry, until time.Time) bool {
	return e.GetStatus() == statusValid && !e.GetNotAfter().AsTime().After(until)
}

// deviceView is a device with its last report, read once for each page.
type deviceView struct {
	device store.Device
	report *controlv1.SyncRequest
	// last is the last contact that the store has.
	last time.Time
}

func view(tx store.Tx, id string, seen map[string]*deviceView) *deviceView {
	if v := seen[id]; v != nil {
		return v
	}
	v := &deviceView{report: &controlv1.SyncRequest{}}
	_, _ = store.GetJSON(tx, store.Devices, []byte(id), &v.device)
	if report, last, err := decodeStatus(tx.Get(store.Statuses, []byte(id))); err == nil {
		v.report, v.last = report, last
	}
	seen[id] = v
	return v
}

// ledgerEntry gives nil for a request that has no certificate.
func (s *Server) ledgerEntry(tx store.Tx, key, value []byte, reports map[string]*deviceView) (*controlv1.LedgerEntry, error) {
	r, err := store.DecodeRequest(value)
	if err != nil || r.State != store.RequestIssued {
		return nil, err
	}
	cert, err := parseLeaf(r.Certificate)
	if err != nil {
		return nil, err
	}
	var serial ca.Serial
	copy(serial[:], key)
	v := view(tx, r.Device, reports)
	sum := sha256.Sum256(r.Certificate)
	entry := &controlv1.LedgerEntry{
		Serial: serial.String(), Name: cert.Subject.CommonName, Department: r.Department,
		NotBefore: timestamppb.New(cert.NotBefore), NotAfter: timestamppb.New(cert.NotAfter),
		Ca: cert.Issuer.CommonName, Type: r.Profile, DeviceId: r.Device, Hostname: v.device.Hostname, User: r.User,
		Store: r.Store, Protection: r.Protection, EnrollmentId: r.Enrollment, Reference: serial.String(),
		FingerprintSha256: hex.EncodeToString(sum[:]), Certificate: r.Certificate,
		Submitted: timestamppb.New(r.Submitted), Reason: r.Reason, Replaces: r.Replaces,
	}
	if r.Authority != "" { // the reference stays ours, the number is the other CA's
		entry.Serial = cert.SerialNumber.Text(16)
	}
	if entry.Mailboxes = cert.EmailAddresses; len(cert.EmailAddresses) > 0 {
		entry.Mailbox = cert.EmailAddresses[0]
	}
	for _, c := range v.report.GetCredentials() {
		if c.GetEnrollmentId() == r.Enrollment {
			entry.Proof = c.GetProof()
		}
	}
	var mark store.Mark
	if _, err := store.GetJSON(tx, store.Marks, key, &mark); err != nil {
		return nil, err
	}
	entry.ReplacedBy = mark.ReplacedBy
	setStatus(entry, mark, s.now())
	return entry, nil
}

func setStatus(e *controlv1.LedgerEntry, mark store.Mark, now time.Time) {
	switch {
	case !mark.RevokedAt.IsZero():
		e.Status, e.RevokedAt, e.RevocationReason = statusRevoked, timestamppb.New(mark.RevokedAt), mark.Reason
	case now.After(e.GetNotAfter().AsTime()):
		e.Status = statusExpired
	case mark.ReplacedBy != "":
		e.Status = statusReplaced
	default:
		e.Status = statusValid
	}
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
		record, err := requestOf(tx, serial)
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
	a.crl.spoil()
	a.desk.Poke()
	a.fleet.wake(device)
	return &controlv1.RevokeResponse{}, nil
}

func (a *admin) revoke(tx store.Tx, serial ca.Serial, record *store.Request, reason string) error {
	if record.Authority != "" {
		return errElsewhere(record)
	}
	cert, err := parseLeaf(record.Certificate)
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
	if err := store.PutJSON(tx, store.Marks, serial[:], mark); err != nil {
		return err
	}
	return orders.Put(tx, record.Device, &controlv1.Order{
		Id: newDeviceID(now),
		What: &controlv1.Order_Revoked{Revoked: &controlv1.RevokedOrder{
			EnrollmentId: record.Enrollment, Reason: reason, At: timestamppb.New(now),
		}},
	}, now)
}
