// Package ledger reads the record of all certificates: where each is, what is to
// be said of it, and what has happened to it.
package ledger

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// The states of a certificate in the ledger.
const (
	Valid    = "valid"
	Expired  = "expired"
	Revoked  = "revoked"
	Replaced = "replaced"
)

// View is a device with its last report, read once for each page.
type View struct {
	Device store.Device
	Report *controlv1.SyncRequest
	// Last is the last contact that the store has.
	Last time.Time
}

// ViewOf reads a device once; seen has those that were read.
func ViewOf(tx store.Tx, id string, seen map[string]*View) *View {
	if v := seen[id]; v != nil {
		return v
	}
	v := &View{Report: &controlv1.SyncRequest{}}
	_, _ = store.GetJSON(tx, store.Devices, []byte(id), &v.Device)
	if report, last, err := DecodeStatus(tx.Get(store.Statuses, []byte(id))); err == nil {
		v.Report, v.Last = report, last
	}
	seen[id] = v
	return v
}

// Entry gives nil for a request that has no certificate.
func Entry(tx store.Tx, key, value []byte, reports map[string]*View, now time.Time) (*controlv1.LedgerEntry, error) {
	r, err := store.DecodeRequest(value)
	if err != nil || r.State != store.RequestIssued {
		return nil, err
	}
	return entryOf(tx, key, r, reports, now)
}

func entryOf(tx store.Tx, key []byte, r *store.Request, reports map[string]*View, now time.Time) (*controlv1.LedgerEntry, error) {
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, err
	}
	var serial ca.Serial
	copy(serial[:], key)
	v := ViewOf(tx, r.Device, reports)
	sum := sha256.Sum256(r.Certificate)
	entry := &controlv1.LedgerEntry{
		Serial: serial.String(), Name: cert.Subject.CommonName, Department: r.Department,
		NotBefore: timestamppb.New(cert.NotBefore), NotAfter: timestamppb.New(cert.NotAfter),
		Ca: cert.Issuer.CommonName, Type: r.Profile, DeviceId: r.Device, Hostname: v.Device.Hostname, User: r.User,
		Store: r.Store, Protection: r.Protection, EnrollmentId: r.Enrollment, Reference: serial.String(),
		FingerprintSha256: hex.EncodeToString(sum[:]), Certificate: r.Certificate,
		Submitted: timestamppb.New(r.Submitted), Reason: r.Reason, Replaces: r.Replaces, Authority: r.Authority,
	}
	if r.Authority != "" { // the reference stays ours, the number is the other CA's
		entry.Serial = cert.SerialNumber.Text(16)
	}
	if entry.Mailboxes = cert.EmailAddresses; len(cert.EmailAddresses) > 0 {
		entry.Mailbox = cert.EmailAddresses[0]
	}
	for _, c := range v.Report.GetCredentials() {
		if c.GetEnrollmentId() == r.Enrollment {
			entry.Proof = c.GetProof()
		}
	}
	var mark store.Mark
	if _, err := store.GetJSON(tx, store.Marks, key, &mark); err != nil {
		return nil, err
	}
	entry.ReplacedBy = mark.ReplacedBy
	setStatus(entry, mark, now)
	return entry, nil
}

func setStatus(e *controlv1.LedgerEntry, mark store.Mark, now time.Time) {
	switch {
	case !mark.RevokedAt.IsZero():
		e.Status, e.RevokedAt, e.RevocationReason = Revoked, timestamppb.New(mark.RevokedAt), mark.Reason
	case now.After(e.GetNotAfter().AsTime()):
		e.Status = Expired
	case mark.ReplacedBy != "":
		e.Status = Replaced
	default:
		e.Status = Valid
	}
}

// DecodeStatus reads a device's last report and contact; what is not there is empty.
func DecodeStatus(data []byte) (*controlv1.SyncRequest, time.Time, error) {
	report := &controlv1.SyncRequest{}
	message, last, _ := store.Stamped(data)
	if err := proto.Unmarshal(message, report); err != nil {
		return nil, last, fmt.Errorf("decode status: %w", err)
	}
	return report, last, nil
}
