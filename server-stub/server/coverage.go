package server

import (
	"context"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/coverage"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/store"
)

// GetCoverage compares what policy gives with what is issued and proved.
func (a *admin) GetCoverage(_ context.Context, req *controlv1.GetCoverageRequest) (*controlv1.GetCoverageResponse, error) {
	return a.Coverage(req)
}

// Coverage is the report that GetCoverage gives.
func (s *Server) Coverage(req *controlv1.GetCoverageRequest) (*controlv1.GetCoverageResponse, error) {
	if err := s.refresh(""); err != nil {
		return nil, err
	}
	var p *policy.Policy
	if force := s.current.Load(); force != nil {
		p = force.policy
	}
	return coverage.Report(p, record{s}, req, s.now())
}

// record is the server's record as [coverage.Source] wants it.
type record struct{ *Server }

// Certificates goes through the ledger.
func (r record) Certificates(visit func(*controlv1.LedgerEntry, string, *controlv1.SyncRequest)) error {
	return ledger.Each(r.store, r.now(), func(_ store.Tx, e *controlv1.LedgerEntry, v *ledger.View) bool {
		visit(e, v.Device.State, v.Report)
		return true
	})
}

// Machines goes through the devices, in parts.
func (r record) Machines(visit func(*controlv1.Device, *controlv1.SyncRequest)) error {
	var from []byte
	for {
		seen, next := 0, []byte(nil)
		err := r.store.View(func(tx store.Tx) error {
			return store.EachJSON(tx, store.Devices, from, func(key []byte, d store.Device) bool {
				if seen == ledger.Part {
					next = append([]byte(nil), key...)
					return false
				}
				seen++
				visit(r.deviceIn(tx, d))
				return true
			})
		})
		if err != nil || next == nil {
			return err
		}
		from = next
	}
}
