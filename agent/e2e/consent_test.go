//go:build linux

package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// TestDeclineLaterApprove: the answers on the command line. A declined
// certificate is not made, the administrator sees why, and an approval takes the
// decline back, also after a restart.
func TestDeclineLaterApprove(t *testing.T) {
	t.Parallel()
	w := company(t, func(w *e2e.World) { w.Consent = "ask" })
	w.open()
	w.login(e2e.HelperOptions{})
	w.await("the question", has(alice, enroll.Wanted))

	w.agent("later", alice)
	w.await("a postponed question", answered(enroll.Later))
	w.agent("decline", alice)
	r := w.await("a declined question", answered(enroll.Decline))
	c, _ := credential(r, alice, enroll.Wanted)
	if c.Consent.Postponed != 1 || c.Problem == nil || c.Problem.Code != enroll.CodeConsentDeclined {
		t.Errorf("consent %+v, problem %+v", c.Consent, c.Problem)
	}
	w.seenByAdministrator("consent-declined")

	w.Service().Kill()
	w.must(w.StartAgent(w.within()))
	w.await("the same decline", func(r status.Report) bool { return answered(enroll.Decline)(r) && len(r.Users) > 0 })
	if n := len(w.ledger()); n != 0 {
		t.Errorf("%d certificates without consent", n)
	}
	w.agent("approve", alice)
	w.await("a proved certificate", has(alice, enroll.Active))
	for _, event := range []string{"consent-postponed", "consent-declined", "consent-given"} {
		if w.events()[event] != 1 {
			t.Errorf("%s is in the audit trail %d times", event, w.events()[event])
		}
	}
	w.checkAudit()
	// What was answered once is no question any more.
	if _, err := w.Agent(w.within(), "decline", alice); exitOf(err) != 1 {
		t.Errorf("declining what is in use: %v", err)
	}
}

func answered(v enroll.Verdict) func(status.Report) bool {
	return func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Wanted)
		return ok && c.Consent != nil && c.Consent.Verdict == v
	}
}

// seenByAdministrator waits until central management shows a condition of the
// only device.
func (w *world) seenByAdministrator(code string) {
	w.t.Helper()
	w.agent("sync")
	var devices []struct {
		ID string `json:"id"`
	}
	w.must(json.Unmarshal([]byte(w.central("devices", "--json")), &devices))
	if len(devices) != 1 {
		w.t.Fatalf("%d devices", len(devices))
	}
	if shown := w.central("device", "show", devices[0].ID); !strings.Contains(shown, code) {
		w.t.Errorf("central management shows no %s:\n%s", code, shown)
	}
}
