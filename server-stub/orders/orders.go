// Package orders keeps what devices are told to do, until they have done it.
package orders

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

// life ends an order that the device never showed to have carried out.
const life = 7 * 24 * time.Hour

// maxListed bounds what one answer carries.
const maxListed = 64

// List gives the orders of a device that still hold. One is stored as 8 octets of
// milliseconds and the order.
func List(tx store.Tx, device string, now time.Time) []*controlv1.Order {
	var out []*controlv1.Order
	tx.Range(store.Orders, []byte(device), nil, func(_, value []byte) bool {
		order, queued, err := decode(value)
		if err == nil && now.Sub(queued) < life {
			out = append(out, order)
		}
		return len(out) < maxListed
	})
	return out
}

func encode(order *controlv1.Order, now time.Time) ([]byte, error) {
	data, err := proto.Marshal(order)
	return store.Stamp(data, now), err
}

func decode(data []byte) (*controlv1.Order, time.Time, error) {
	order := &controlv1.Order{}
	message, queued, ok := store.Stamped(data)
	if !ok {
		return nil, time.Time{}, fmt.Errorf("decode order: %d octets", len(data))
	}
	return order, queued, proto.Unmarshal(message, order)
}

// Put files an order and takes those out whose time is over.
func Put(tx store.Tx, device string, order *controlv1.Order, now time.Time) error {
	err := Drop(tx, device, func(_ *controlv1.Order, queued time.Time) bool { return now.Sub(queued) >= life })
	if err != nil {
		return err
	}
	data, err := encode(order, now)
	if err != nil {
		return err
	}
	return tx.Put(store.Orders, append([]byte(device), order.GetId()...), data)
}

// Drop takes out those that are done, and those that cannot be read.
func Drop(tx store.Tx, device string, done func(o *controlv1.Order, queued time.Time) bool) error {
	var keys [][]byte
	tx.Range(store.Orders, []byte(device), nil, func(key, value []byte) bool {
		if order, queued, err := decode(value); err != nil || done(order, queued) {
			keys = append(keys, bytes.Clone(key))
		}
		return true
	})
	for _, key := range keys {
		if err := tx.Delete(store.Orders, key); err != nil {
			return err
		}
		if tx.Get(store.Proofs, key) == nil {
			continue
		}
		if err := tx.Delete(store.Proofs, key); err != nil {
			return err
		}
	}
	return nil
}

// KeepProofs notes when each credential of the device was proved last by the
// device's own clock, so that nobody has to compare two clocks to tell whether
// an order to prove was carried out.
func KeepProofs(tx store.Tx, device, order string) error {
	report := &controlv1.SyncRequest{}
	message, _, _ := store.Stamped(tx.Get(store.Statuses, []byte(device)))
	if err := proto.Unmarshal(message, report); err != nil {
		return fmt.Errorf("read last report: %w", err)
	}
	before := map[string]int64{}
	for _, c := range report.GetCredentials() {
		if c.GetProof() != nil {
			before[c.GetEnrollmentId()] = c.GetProof().GetAt().AsTime().UnixNano()
		}
	}
	return store.PutJSON(tx, store.Proofs, append([]byte(device), order...), before)
}

// EndProved takes out orders to prove for which the report has newer proofs,
// good or bad, of every credential that is in use or had one.
func EndProved(tx store.Tx, device string, report *controlv1.SyncRequest) error {
	return Drop(tx, device, func(o *controlv1.Order, _ time.Time) bool {
		if o.GetProve() == nil {
			return false
		}
		var before map[string]int64
		data := tx.Get(store.Proofs, append([]byte(device), o.GetId()...))
		if data == nil || json.Unmarshal(data, &before) != nil {
			return false
		}
		return provedSince(report, before)
	})
}

func provedSince(report *controlv1.SyncRequest, before map[string]int64) bool {
	for _, c := range report.GetCredentials() {
		at, had := before[c.GetEnrollmentId()]
		if !had && c.GetState() != "active" {
			continue
		}
		if c.GetProof() == nil || had && c.GetProof().GetAt().AsTime().UnixNano() <= at {
			return false
		}
	}
	return true
}
