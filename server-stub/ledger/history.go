package ledger

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/store"
)

// maxLineage bounds how many certificates before and after one a history goes through.
const maxLineage = 100

// History gives one certificate, and what happened to it and to those that it
// follows and that follow it; nil if there is none.
func History(tx store.Tx, serial ca.Serial, now time.Time) (*controlv1.LedgerEntry, []*controlv1.HistoryLine, error) {
	h := &history{tx: tx, views: map[string]*View{}, now: now}
	entry, err := h.entry(serial)
	if err != nil || entry == nil {
		return nil, nil, err
	}
	if err := h.lineage(entry); err != nil {
		return nil, nil, err
	}
	return entry, h.sorted(), nil
}

// history gathers lines within one transaction.
type history struct {
	tx    store.Tx
	views map[string]*View
	now   time.Time
	lines []*controlv1.HistoryLine
}

func (h *history) entry(serial ca.Serial) (*controlv1.LedgerEntry, error) {
	value := h.tx.Get(store.Certificates, serial[:])
	if value == nil {
		return nil, nil
	}
	return Entry(h.tx, serial[:], value, h.views, h.now)
}

// lineage goes back by the enrollments that were replaced, and forth by the
// certificates that replaced them.
func (h *history) lineage(e *controlv1.LedgerEntry) error {
	h.tell(e)
	for back, n := e, 0; back.GetReplaces() != "" && n < maxLineage; n++ {
		serial, record, err := Enrolled(h.tx, back.GetDeviceId(), back.GetReplaces())
		if err != nil || record == nil {
			return err
		}
		if back, err = h.entry(serial); err != nil || back == nil {
			return err
		}
		h.tell(back)
	}
	for on, n := e, 0; on.GetReplacedBy() != "" && n < maxLineage; n++ {
		serial, err := ca.ParseSerial(on.GetReplacedBy())
		if err != nil {
			return fmt.Errorf("mark of %s: %w", on.GetSerial(), err)
		}
		if on, err = h.entry(serial); err != nil || on == nil {
			return err
		}
		h.tell(on)
	}
	return nil
}

func (h *history) add(e *controlv1.LedgerEntry, at time.Time, code, detail string) {
	h.lines = append(h.lines, &controlv1.HistoryLine{At: timestamppb.New(at), Serial: e.GetSerial(), Code: code, Detail: detail})
}

// tell adds all that is known of one certificate.
func (h *history) tell(e *controlv1.LedgerEntry) {
	h.add(e, e.GetSubmitted().AsTime(), "submitted", e.GetReason())
	h.add(e, issuedAt(e), "issued", e.GetType()+" for "+strings.Join(e.GetMailboxes(), " "))
	if e.GetRevokedAt() != nil {
		h.add(e, e.GetRevokedAt().AsTime(), "revoked", e.GetRevocationReason())
	}
	if end := e.GetNotAfter().AsTime(); h.now.After(end) {
		h.add(e, end, "expired", "")
	}
	if next, err := ca.ParseSerial(e.GetReplacedBy()); err == nil {
		if record, err := RequestOf(h.tx, next); err == nil && record != nil {
			h.add(e, record.Submitted, "replaced", "by "+e.GetReplacedBy())
		}
	}
	if p := e.GetProof(); p.GetOk() {
		h.add(e, p.GetAt().AsTime(), "proved", strings.Join(p.GetAlgorithms(), " "))
	} else if p != nil {
		h.add(e, p.GetAt().AsTime(), "proof-failed", p.GetFailure())
	}
	h.reminders(e)
	h.events(e)
}

// issuedAt is when a certificate was made, as far as it says: ours begin a fixed time
// before, those of other CAs when they like, but nobody has one before he asks.
func issuedAt(e *controlv1.LedgerEntry) time.Time {
	at := e.GetNotBefore().AsTime()
	if e.GetAuthority() == "" {
		at = at.Add(ca.Backdate)
	}
	if submitted := e.GetSubmitted().AsTime(); at.Before(submitted) {
		return submitted
	}
	return at
}

func (h *history) reminders(e *controlv1.LedgerEntry) {
	serial, err := ca.ParseSerial(e.GetReference())
	if err != nil {
		return
	}
	h.tx.Range(store.Reminders, serial[:], nil, func(key, _ []byte) bool {
		var r store.Reminder
		if _, err := store.GetJSON(h.tx, store.Reminders, key, &r); err != nil || len(key) != ca.SerialSize+2 {
			return true
		}
		detail := fmt.Sprintf("%d days before the end", binary.BigEndian.Uint16(key[ca.SerialSize:]))
		if !r.Owner.IsZero() {
			h.add(e, r.Owner, "reminder-owner", strings.TrimSuffix(detail+", not delivered: "+r.OwnerFailed, ", not delivered: "))
		}
		if !r.Administrator.IsZero() {
			h.add(e, r.Administrator, "reminder-administrator", detail)
		}
		return true
	})
}

// events adds what the device reported of the enrollment.
func (h *history) events(e *controlv1.LedgerEntry) {
	h.tx.Range(store.Events, []byte(e.GetDeviceId()), nil, func(_, value []byte) bool {
		event := &controlv1.Event{}
		if proto.Unmarshal(value, event) == nil && event.GetEnrollmentId() == e.GetEnrollmentId() {
			h.add(e, event.GetAt().AsTime(), event.GetCode(), event.GetOutcome())
		}
		return true
	})
}

func (h *history) sorted() []*controlv1.HistoryLine {
	slices.SortStableFunc(h.lines, func(a, b *controlv1.HistoryLine) int { return a.GetAt().AsTime().Compare(b.GetAt().AsTime()) })
	return h.lines
}
