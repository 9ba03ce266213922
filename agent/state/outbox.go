package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"smime-agent/agent/enroll"
)

// AuditEvent is an event on its way to central management.
type AuditEvent struct {
	// ID is a UUID version 7, so that IDs sort by age; the same event sent twice
	// is known by it.
	ID    string       `json:"id"`
	Event enroll.Event `json:"event"`
	// Sequence is the number of the transaction that kept the event; [DB.Save]
	// sets it.
	Sequence uint64 `json:"sequence,omitempty"`
}

// send puts events into the outbox.
func (t *transaction) send(events []AuditEvent, limit int) error {
	for i, a := range events {
		a.Sequence = t.head.Generation
		events[i].Sequence = a.Sequence
		if a.ID == "" {
			return errors.New("audit event has no ID")
		}
		a.Event.Enrollment.CSR = nil
		a.Event.Enrollment.Chain = a.Event.Enrollment.Chain[:min(1, len(a.Event.Enrollment.Chain))]
		if err := t.put(bucketOutbox, a.ID, a); err != nil {
			return err
		}
	}
	return t.makeRoom(limit)
}

func (t *transaction) makeRoom(limit int) error {
	for t.head.Sets[bucketOutbox].Count > limit {
		k, _ := t.tx.Bucket([]byte(bucketOutbox)).Cursor().First()
		if k == nil {
			return fmt.Errorf("%w: outbox has fewer events than counted", ErrDamaged)
		}
		if err := t.remove(bucketOutbox, string(k)); err != nil {
			return err
		}
		t.head.Dropped++
	}
	return nil
}

// Pending gives at most n events (0 for all), oldest first.
func (d *DB) Pending(n int) ([]AuditEvent, error) {
	var events []AuditEvent
	err := d.view("read audit events", func(t *transaction) error {
		return t.each(bucketOutbox, n, func(_ string, j []byte) error {
			var e AuditEvent
			if err := json.Unmarshal(j, &e); err != nil {
				return err
			}
			events = append(events, e)
			return nil
		})
	})
	return events, err
}

// Newest gives at most n events, the newest last.
func (d *DB) Newest(n int) ([]AuditEvent, error) {
	var events []AuditEvent
	err := d.view("read audit events", func(t *transaction) error {
		c := t.tx.Bucket([]byte(bucketOutbox)).Cursor()
		for k, v := c.Last(); k != nil && len(events) < n; k, v = c.Prev() {
			var e AuditEvent
			if err := decode(bucketOutbox, string(k), v, &e); err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			events = append(events, e)
		}
		return nil
	})
	slices.Reverse(events)
	return events, err
}

// Forget takes events out of the outbox that central management has recorded.
func (d *DB) Forget(ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	return d.update("forget audit events", func(t *transaction) error {
		for _, id := range ids {
			if err := t.remove(bucketOutbox, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Dropped counts the events that were never reported because the outbox was full.
func (d *DB) Dropped() (uint64, error) {
	h, err := d.head()
	return h.Dropped, err
}

// Generation counts the transactions of this record: if an event's sequence is
// higher, this is an older copy that was put back.
func (d *DB) Generation() (uint64, error) {
	h, err := d.head()
	return h.Generation, err
}

// Doubt notes that the record must be compared with the key stores and central
// management before it is believed, or that it was. After damage it is noted by
// [Open]; [Opened.Doubted] tells of it until it is taken back. Transactions are
// counted on from past if that is more than this record had, so that no number
// is used again of the record in whose place it is.
func (d *DB) Doubt(doubted bool, past uint64) error {
	return d.update("note doubt", func(t *transaction) error {
		t.head.Doubted, t.head.Generation = doubted, max(t.head.Generation, past+1)
		return nil
	})
}

func (d *DB) head() (head, error) {
	var h head
	err := d.view("read head", func(t *transaction) error {
		_, err := t.get(bucketMeta, keyHead, &h)
		return err
	})
	return h, err
}
