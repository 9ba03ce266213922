package control

import (
	"slices"
	"strings"

	"smime-agent/agent/enroll"
)

// source keeps apart what can be wrong at the same time.
type source string

const (
	sourceCall     source = "call"
	sourceIdentity source = "identity"
	sourcePolicy   source = "policy"
)

// failed turns err of a call as id into what to do, and remembers it if it is
// about the device.
func (c *Client) failed(id *identity, err error) *enroll.Error {
	e, row := errorOf(err)
	if row.rejoin && id != nil {
		c.mu.Lock()
		c.refused = id.name()
		c.mu.Unlock()
	}
	if row.device {
		c.note(sourceCall, e)
	}
	return e
}

// note remembers what is wrong, since when; nil clears it.
func (c *Client) note(from source, e *enroll.Error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e == nil {
		delete(c.troubles, from)
		return
	}
	n := Condition{Code: e.Code, Severity: "error", Text: e.Hint, Since: now}
	if e.Code == enroll.CodeControlOverloaded || e.Code == CodeDevicePending {
		n.Severity = "warning"
	}
	if old, ok := c.troubles[from]; ok && old.Code == n.Code {
		n.Since = old.Since
	}
	c.troubles[from] = n
}

// Conditions is what is wrong with the device or the way to the server, as the
// last calls showed it; empty if all is well.
func (c *Client) Conditions() []Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Condition
	for _, t := range c.troubles {
		if !slices.ContainsFunc(all, func(o Condition) bool { return o.Code == t.Code }) {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b Condition) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return all
}
