package server

import (
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/ledger"
	"smime-agent/server-stub/responder"
	"smime-agent/server-stub/store"
)

// certificateStatus is what OCSP is told of a serial number.
func (s *Server) certificateStatus(serial ca.Serial) (status responder.Status, err error) {
	err = s.store.View(func(tx store.Tx) error {
		record, err := ledger.RequestOf(tx, serial)
		if err != nil || record == nil || record.State != store.RequestIssued || record.Authority != "" {
			return err
		}
		var mark store.Mark
		_, err = store.GetJSON(tx, store.Marks, serial[:], &mark)
		status = responder.Status{Issued: true, RevokedAt: mark.RevokedAt, Reason: mark.Reason}
		return err
	})
	return status, err
}
