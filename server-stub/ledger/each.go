package ledger

import (
	"errors"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

var errStop = errors.New("enough was read")

// Each goes through the ledger in parts, so that no transaction is held
// open for long, until visit says false. The entry has no certificate in it.
func Each(s store.Store, now time.Time, visit func(tx store.Tx, e *controlv1.LedgerEntry, v *View) bool) error {
	var from []byte
	for {
		seen, next := 0, []byte(nil)
		views := map[string]*View{}
		err := s.View(func(tx store.Tx) error {
			var failed error
			tx.Range(store.Certificates, nil, from, func(key, value []byte) bool {
				if seen == Part {
					next = append([]byte(nil), key...)
					return false
				}
				seen++
				var entry *controlv1.LedgerEntry
				if entry, failed = Entry(tx, key, value, views, now); failed != nil {
					return false
				}
				if entry == nil {
					return true
				}
				entry.Certificate = nil
				if !visit(tx, entry, ViewOf(tx, entry.GetDeviceId(), views)) {
					failed = errStop
				}
				return failed == nil
			})
			return failed
		})
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil || next == nil {
			return err
		}
		from = next
	}
}

// Part is how many certificates one transaction reads.
const Part = 2000
