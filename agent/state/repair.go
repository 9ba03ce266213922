package state

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// repair sets the damaged file aside and builds a new one of what can be saved.
// A crash in between leaves the damaged file, which is repaired again.
func repair(path string, raw []byte, at time.Time) (Opened, error) {
	opened := Opened{Damaged: true, Missing: -1}
	found := carve(raw)
	if r, ok := found[[2]string{bucketMeta, keySchema}]; ok {
		var s schema
		if err := json.Unmarshal(r.json, &s); err == nil && s.readable() != nil {
			return opened, s.readable()
		}
	}
	var records []record
	for _, r := range found {
		if keep(r) {
			records = append(records, r)
		}
		if r.bucket == bucketEnrollments {
			opened.Salvaged++
		}
	}
	if r, ok := found[[2]string{bucketMeta, keyHead}]; ok {
		var h head
		if err := json.Unmarshal(r.json, &h); err == nil {
			opened.Missing = max(0, h.Sets[bucketEnrollments].Count-opened.Salvaged)
		}
	}
	aside, err := setAside(path, raw, at)
	if err != nil {
		return opened, fmt.Errorf("set damaged record aside: %w", err)
	}
	opened.SetAside = aside
	return opened, build(path, records, true)
}

// keep says whether a record goes into the new file as it is. Of meta only the
// installation's ID does; the rest is written anew.
func keep(r record) bool {
	if r.bucket == bucketMeta {
		return r.key == keyInstallation
	}
	return slices.Contains(counted, r.bucket)
}

// guard turns a panic, and a fault on a mapped page that is gone, into an
// error: a sick file must not become a restart loop.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}
