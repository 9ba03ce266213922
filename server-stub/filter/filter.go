// Package filter picks from the record what an administrator asks for.
package filter

import (
	"slices"
	"strings"

	controlv1 "smime-agent/proto/control/v1"
)

func anyHas(part string, texts ...string) bool {
	part = strings.ToLower(part)
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), part) })
}

// Entry holds an entry against the filters of the request.
func Entry(req *controlv1.ListLedgerRequest, e *controlv1.LedgerEntry) bool {
	if len(req.GetStatuses()) > 0 && !slices.Contains(req.GetStatuses(), e.GetStatus()) {
		return false
	}
	if req.GetDeviceId() != "" && req.GetDeviceId() != e.GetDeviceId() {
		return false
	}
	if req.GetDepartment() != "" && !strings.EqualFold(req.GetDepartment(), e.GetDepartment()) {
		return false
	}
	return req.GetMatches() == "" || anyHas(req.GetMatches(), append([]string{e.GetName(), e.GetSerial(), e.GetHostname()}, e.GetMailboxes()...)...)
}
