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
		var next []byte
		err := s.View(func(tx store.Tx) (err error) {
			next, err = Page(tx, from, Part, now, func(e *controlv1.LedgerEntry, v *View) bool {
				e.Certificate = nil
				return visit(tx, e, v)
			})
			return err
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

// line is a record on its way to an entry.
type line struct {
	key     []byte
	request *store.Request
}

// Page visits the certificates among at most size records, and gives the key to go on with; nil at the end.
func Page(tx store.Tx, from []byte, size int, now time.Time, visit func(e *controlv1.LedgerEntry, v *View) bool) (next []byte, err error) {
	var lines []line
	seen := 0
	tx.Range(store.Certificates, nil, from, func(key, value []byte) bool {
		if seen == size {
			next = append([]byte(nil), key...)
			return false
		}
		seen++
		var r *store.Request
		if r, err = store.DecodeRequest(value); err == nil && r.State == store.RequestIssued {
			lines = append(lines, line{key: key, request: r})
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	store.Prefetch(tx, refsOf(lines)...)
	views := map[string]*View{}
	for _, l := range lines {
		entry, err := entryOf(tx, l.key, l.request, views, now)
		if err != nil {
			return nil, err
		}
		if !visit(entry, ViewOf(tx, entry.GetDeviceId(), views)) {
			return nil, errStop
		}
	}
	return next, nil
}

// refsOf names all that the entries are made of.
func refsOf(lines []line) []store.Ref {
	refs := make([]store.Ref, 0, 3*len(lines))
	seen := map[string]bool{}
	for _, l := range lines {
		refs = append(refs, store.Ref{Bucket: store.Marks, Key: l.key})
		if device := l.request.Device; !seen[device] {
			seen[device] = true
			refs = append(refs, store.Ref{Bucket: store.Devices, Key: []byte(device)}, store.Ref{Bucket: store.Statuses, Key: []byte(device)})
		}
	}
	return refs
}
