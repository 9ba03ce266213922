package service

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/stub"
)

// crowd refuses the first call of some methods as an overloaded server does, and
// keeps when each came.
type crowd struct {
	mu    sync.Mutex
	came  map[string][]time.Time
	asked map[string]time.Duration
}

func (c *crowd) fault(method string) error {
	if method != "Join" && method != "Submit" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came[method] = append(c.came[method], wallClock()) // as the service reckons
	if len(c.came[method]) > 1 {
		return nil
	}
	retry, err := stub.Overloaded()
	c.asked[method] = retry
	return err
}

// TestOverloadedServer: the service comes back to an overloaded server when that
// wants it to and not before, joins, and gets its one certificate.
func TestOverloadedServer(t *testing.T) {
	if testing.Short() && os.Getenv("SMIME_AGENT_REQUIRE") == "" {
		t.Skip("waits as long as the server wants")
	}
	user, err := platform.CurrentUser()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{came: map[string][]time.Time{}, asked: map[string]time.Duration{}}
	b := &bench{t: t, dir: t.TempDir(), stop: cancel, ended: make(chan error, 1),
		store: platformtest.NewStore("memory"), prompter: &platformtest.Prompter{}}
	b.server, err = stub.Start(ctx, stub.Options{
		Fault: c.fault, PolicyYAML: strings.ReplaceAll(policyYAML, "CONSENT", "silent"),
		PeopleCSV: "account,mailbox,given_name,surname,display_name,department\n" + user.Account + ",alice@example.com,Alice,Example,Alice Example,Sales\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.server.Close() })
	b.writeSettings()
	b.start(ctx)
	b.await("word of the overload", func(r status.Report) bool {
		return says(r, enroll.CodeControlOverloaded)
	})
	b.await("an admitted device", func(r status.Report) bool { return r.Device.Joined })
	b.await("an active credential", inState(enroll.Active))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, method := range []string{"Join", "Submit"} {
		came, asked := c.came[method], c.asked[method]
		if len(came) != 2 || asked < 5*time.Second {
			t.Errorf("%s was called %d times, to be repeated after %v", method, len(came), asked)
			continue
		}
		if gap := came[1].Sub(came[0]); gap < asked {
			t.Errorf("%s was repeated after %v, the server wants %v", method, gap, asked)
		}
	}
	list, err := b.server.Admin.ListDevices(t.Context(), &controlv1.ListDevicesRequest{})
	if err != nil || len(list.GetDevices()) != 1 {
		t.Errorf("devices %v, %v, want one", list, err)
	}
}

func says(r status.Report, code enroll.Code) bool {
	for _, c := range r.Conditions {
		if c.Code == code {
			return true
		}
	}
	return false
}
