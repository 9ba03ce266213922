package service

import (
	"fmt"
	"testing"

	"smime-agent/agent/enroll"
)

// TestChecksAreBounded: a place is kept once, a person's oldest place goes first,
// and one person takes nothing from another.
func TestChecksAreBounded(t *testing.T) {
	var all []enroll.MailCheck
	for i := range 100 {
		all = withCheck(all, enroll.MailCheck{User: "bob", Path: "/b", Messages: i})
		all = withCheck(all, enroll.MailCheck{User: "ann", Path: fmt.Sprint("/", i)})
	}
	if len(all) != placesKept+1 {
		t.Fatalf("%d kept: %+v", len(all), all)
	}
	if first, last := all[0], all[len(all)-1]; first.Path != "/92" || last.Path != "/99" {
		t.Errorf("kept from %+v to %+v", first, last)
	}
	for _, c := range all {
		if c.User == "bob" && c.Messages != 99 {
			t.Errorf("%+v", c)
		}
	}
	for i := range 1000 {
		all = withCheck(all, enroll.MailCheck{User: fmt.Sprint("u", i), Path: "/"})
	}
	if len(all) != checksKept {
		t.Errorf("%d kept", len(all))
	}
}
