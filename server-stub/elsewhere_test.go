package main

import (
	"bytes"
	"strings"
	"testing"

	controlv1 "smime-agent/proto/control/v1"
)

// TestToldElsewhere: in each form of the output, the administrator is told what
// another CA has to revoke, and a command that could not do all of it fails.
func TestToldElsewhere(t *testing.T) {
	entries := goldenEntries()
	entries[1].Authority, entries[1].Ca = "est", "Other CA"
	leavers := &controlv1.ListLeaversResponse{Leavers: []*controlv1.Leaver{{Entry: entries[0]}, {Entry: entries[1]}}}
	for _, c := range []struct {
		name  string
		tell  func(a *app, revoke bool) error
		wants []string // of a revocation
		table bool
	}{
		{"leavers", func(a *app, r bool) error { return a.toldLeavers(leavers, format{}, r) }, []string{"1 of the 2 are revoked", "Other CA (est)", "4199bb"}, true},
		{"leavers --csv", func(a *app, r bool) error { return a.toldLeavers(leavers, format{csv: true}, r) }, []string{"4199bb,Other CA,est"}, false},
		{"leavers --json", func(a *app, r bool) error { return a.toldLeavers(leavers, format{json: true}, r) }, []string{"est"}, false},
		{"device remove", func(a *app, r bool) error { return a.toldRemoved("d1", entries, r) }, []string{"Revoked:", "Other CA (est)", "4199bb"}, true},
	} {
		var out bytes.Buffer
		a := &app{env: env{out: &out}}
		err := c.tell(a, true)
		if err == nil || !strings.Contains(err.Error(), "not revoked: 1 of these") || !strings.Contains(err.Error(), "at that CA") {
			t.Errorf("%s: the revocation ends with %v", c.name, err)
		}
		for _, want := range c.wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: the revocation lacks %q:\n%s", c.name, want, out.String())
			}
		}
		if strings.Contains(out.String(), "All of them") {
			t.Errorf("%s: says of all that they are revoked:\n%s", c.name, out.String())
		}
		out.Reset()
		if err := c.tell(a, false); err != nil || c.table && !strings.Contains(out.String(), "only there") {
			t.Errorf("%s: listed alone: %v\n%s", c.name, err, out.String())
		}
	}
}
