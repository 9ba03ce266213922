// Package filter picks from the record what an administrator asks for.
package filter

import (
	"slices"
	"strings"
	"time"

	controlv1 "smime-agent/proto/control/v1"
)

// Device says whether a device is one that the request wants; its state was looked at
// before. heard is its last contact.
func Device(req *controlv1.ListDevicesRequest, d *controlv1.Device, report *controlv1.SyncRequest, heard, now time.Time) bool {
	if silent := req.GetSilentFor(); silent != nil && now.Sub(heard) < silent.AsDuration() {
		return false
	}
	if code := req.GetCondition(); code != "" && !slices.ContainsFunc(d.GetConditions(), func(c *controlv1.ConditionReport) bool {
		return c.GetCode() == code || code == anyCondition && c.GetSeverity() != "info"
	}) {
		return false
	}
	facts := d.GetFacts()
	if v := req.GetVersion(); v != "" && !anyHas(v, facts.GetAgentVersion(), facts.GetOs()+" "+facts.GetOsVersion()) {
		return false
	}
	if text := req.GetMatches(); text != "" {
		texts := append([]string{d.GetId(), facts.GetHostname()}, d.GetAccounts()...)
		for _, c := range report.GetCredentials() {
			texts = append(texts, c.GetMailbox())
		}
		return anyHas(text, texts...)
	}
	return true
}

// anyCondition stands for every condition that is no mere information.
const anyCondition = "any"

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
