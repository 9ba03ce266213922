package local

import (
	"slices"
	"strings"
	"testing"

	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

func TestMailIsOnesOwn(t *testing.T) {
	h := open(t, nil)
	check := enroll.MailCheck{User: "uid:0", Path: "/home/ann\x1b/Mail", Encrypted: 3, Opened: 2, Keys: []enroll.MailKey{
		{Enrollment: "smime-a1", Serial: "01", Presence: "here", Messages: 2}, {Serial: "02", Presence: "stolen", Messages: -1},
	}}
	if err := h.client("1000").ReportMail(t.Context(), check); err != nil {
		t.Fatal(err)
	}
	want := "uid:1000 mail /home/ann/Mail 2/3 [{smime-a1  01  here 2} {  02  unknown 0}] -"
	if got := h.agent.take(); !slices.Equal(got, []string{want}) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestMailIsBounded(t *testing.T) {
	h := open(t, nil)
	c := h.client("1000")
	for name, r := range map[string]*localv1.ReportMailRequest{
		"no path": {}, "many keys": {Path: "/x", Keys: make([]*localv1.MailKey, mailKeysLimit+1)},
	} {
		if name == "many keys" {
			for i := range r.Keys {
				r.Keys[i] = &localv1.MailKey{}
			}
		}
		if _, err := c.api.ReportMail(t.Context(), r); reasonOf(fromStatus(err)) != ReasonInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := enroll.MailCheck{Path: strings.Repeat("x", 10000), Messages: 1 << 40, Keys: make([]enroll.MailKey, 500)}
	if err := c.ReportMail(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if got := h.agent.take(); len(got) != 1 || len(got[0]) > 30000 {
		t.Errorf("told %d octets", len(got[0]))
	}
}
