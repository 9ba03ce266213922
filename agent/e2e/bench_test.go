//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// samples is how many one employee goes through for each kind of key: an odd
// number, so that the median is one of them.
const samples = 15

// apart is the wait between two of them: longer than the service gathers changes
// before it reports them, and than a key store's library rests.
const apart = 1500 * time.Millisecond

// BenchmarkEnrollment measures the way from the employee's agreement to the
// proved certificate, as the audit trail has it, with the built programs as
// processes on the loopback and everything on the disk. overhead-ms is that
// time without the generation of the key itself, which a helper built for this
// measurement times (see [timedPrograms]); the six parts are the steps. All
// figures are medians. Each enrollment waits until the one before is over, and
// b.N is not used.
func BenchmarkEnrollment(b *testing.B) {
	for _, store := range []string{"nss:default", "file"} {
		for _, key := range []string{"p-256", "rsa-2048", "rsa-3072"} {
			b.Run(store+"/"+key, func(b *testing.B) { benchEnrollment(b, store, key) })
		}
	}
}

func benchEnrollment(b *testing.B, store, key string) {
	ctx, cancel := context.WithTimeout(b.Context(), 4*time.Minute)
	defer cancel()
	c := measuredWorld(b, timedPrograms(b), store, key, samples)
	c.open(ctx)
	if !c.has(ctx, store) {
		b.Skipf("SKIP: this machine has no store %s", store)
	}
	var all []timing
	for i, e := range c.Employees {
		time.Sleep(apart)
		all = append(all, c.enroll(ctx, i, e.Mailbox))
	}
	if b.Failed() {
		return
	}
	report(b, all)
	b.ReportMetric(ms(c.syncTime()), "fdatasync-ms")
	if d, ok := c.privateOperation(ctx, store); ok {
		b.ReportMetric(ms(d), "sign-ms")
	}
}

func report(b *testing.B, all []timing) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // one figure for a fixed number of enrollments says nothing
	for unit, of := range map[string]func(timing) time.Duration{
		"overhead-ms":    func(t timing) time.Duration { return t.total() - t.generation },
		"generate-ms":    func(t timing) time.Duration { return t.generation },
		"request-ms":     func(t timing) time.Duration { return t.steps[enroll.EventKey] - t.generation },
		"submit-ms":      func(t timing) time.Duration { return t.steps[enroll.EventSubmitted] },
		"collect-ms":     func(t timing) time.Duration { return t.steps[enroll.EventIssued] },
		"install-ms":     func(t timing) time.Duration { return t.steps[enroll.EventInstalled] },
		"prove-ms":       func(t timing) time.Duration { return t.steps[enroll.EventProved] },
		"service-cpu-ms": func(t timing) time.Duration { return t.cpu[0] },
		"helper-cpu-ms":  func(t timing) time.Duration { return t.cpu[1] - t.generationCPU },
		"server-cpu-ms":  func(t timing) time.Duration { return t.cpu[2] },
	} {
		values := make([]time.Duration, 0, len(all))
		for _, t := range all {
			values = append(values, of(t))
		}
		slices.Sort(values)
		b.ReportMetric(ms(values[len(values)/2]), unit)
		if unit == "overhead-ms" {
			b.ReportMetric(ms(values[0]), "overhead-min-ms")
			b.ReportMetric(ms(values[len(values)-1]), "overhead-max-ms")
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// timing is one enrollment.
type timing struct {
	// steps have the time since the event before.
	steps                     map[enroll.EventCode]time.Duration
	generation, generationCPU time.Duration
	// cpu is what service, helper and server used meanwhile.
	cpu [3]time.Duration
}

func (t timing) total() time.Duration {
	var sum time.Duration
	for _, d := range t.steps {
		sum += d
	}
	return sum
}

// way is what the audit trail has of an enrollment, in order.
var way = []enroll.EventCode{
	enroll.EventConsent, enroll.EventKey, enroll.EventSubmitted, enroll.EventIssued, enroll.EventInstalled, enroll.EventProved,
}

// measured is a world with one employee of several mailboxes.
type measured struct {
	*e2e.World
	b       *testing.B
	account string
	helper  *e2e.Process
}

func measuredWorld(b *testing.B, bin, store, key string, mailboxes int) *measured {
	b.Helper()
	me, err := user.Current()
	if err != nil {
		b.Skipf("SKIP: %v", err)
	}
	// Not b.TempDir: its name is too long for a Unix socket (unix(7), sun_path).
	dir, err := os.MkdirTemp("", "smime-bench-")
	if err != nil {
		b.Fatal(err)
	}
	c := &measured{b: b, account: me.Username, World: &e2e.World{
		Bin: bin, Dir: dir, Consent: "ask", Profile: "employee-dual", Stores: []string{store}, Keys: []string{key},
	}}
	for i := range mailboxes {
		c.Employees = append(c.Employees, e2e.Employee{
			Account: me.Username, Mailbox: fmt.Sprintf("alice%d@example.com", i), Given: "Alice", Surname: "Example",
		})
	}
	b.Cleanup(func() {
		if c.helper != nil {
			c.helper.Stop()
		}
		c.Close()
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	c.must(c.Founded(b.Context()))
	return c
}

func (c *measured) must(err error) {
	c.b.Helper()
	if err != nil {
		c.b.Fatal(err)
	}
}

// open starts everything and waits until the employee is asked about all mailboxes.
func (c *measured) open(ctx context.Context) {
	c.b.Helper()
	c.must(c.StartServer(ctx))
	c.must(c.WriteSettings(ctx))
	c.must(c.StartAgent(ctx))
	var err error
	c.helper, err = c.StartHelper(e2e.HelperOptions{Account: c.account})
	c.must(err)
	_, err = c.Await(ctx, "the questions", func(r status.Report) bool {
		wanted := 0
		for _, x := range r.Credentials {
			if x.State == enroll.Wanted {
				wanted++
			}
		}
		return wanted == len(c.Employees)
	})
	c.must(err)
}

// has says that the enrollments have the store as their place.
func (c *measured) has(ctx context.Context, store string) bool {
	r, err := c.Report(ctx)
	c.must(err)
	return len(r.Credentials) > 0 && r.Credentials[0].Store == store
}

// enroll approves the i-th mailbox and waits for the proof.
func (c *measured) enroll(ctx context.Context, i int, mailbox string) timing {
	c.b.Helper()
	before := c.cpu()
	_, err := c.Agent(ctx, "approve", mailbox)
	c.must(err)
	var at map[enroll.EventCode]time.Time
	for len(at) < len(way) {
		select {
		case <-ctx.Done():
			c.b.Fatalf("%s: %v; so far %v; helper: %s", mailbox, ctx.Err(), at, c.helper.Output())
		case <-time.After(20 * time.Millisecond): // reading is no reason to take the machine away
		}
		at = c.events(mailbox)
	}
	t := timing{steps: map[enroll.EventCode]time.Duration{}, cpu: c.cpu()}
	for j := range t.cpu {
		t.cpu[j] -= before[j]
	}
	for j, code := range way[1:] {
		t.steps[code] = at[code].Sub(at[way[j]])
	}
	t.generation, t.generationCPU, err = generation(c.helper.Output(), i)
	c.must(err)
	return t
}

// events reads the times of a mailbox's way out of the audit trail.
func (c *measured) events(mailbox string) map[enroll.EventCode]time.Time {
	c.b.Helper()
	raw, err := os.ReadFile(filepath.Join(c.Dir, "agent", "log", "audit.log"))
	c.must(err)
	at := map[enroll.EventCode]time.Time{}
	for line := range bytes.Lines(raw) {
		var l struct {
			Time    time.Time        `json:"time"`
			Event   enroll.EventCode `json:"event"`
			Outcome string           `json:"outcome"`
			Mailbox string           `json:"mailbox"`
		}
		if json.Unmarshal(line, &l) != nil { // the end of a line that is being written
			continue
		}
		if l.Mailbox == mailbox && slices.Contains(way, l.Event) {
			if l.Outcome != "success" {
				c.b.Fatalf("%s", line)
			}
			at[l.Event] = l.Time
		}
	}
	return at
}

// generation finds what the helper noted of the i-th key.
func generation(output string, i int) (took, cpu time.Duration, err error) {
	for line := range strings.Lines(output) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), noted)
		if !ok {
			continue
		}
		if i--; i < 0 {
			_, err := fmt.Sscan(rest, (*int64)(&took), (*int64)(&cpu))
			return took, cpu, err
		}
	}
	return 0, 0, errors.New("the helper did not note the generation of the key")
}

// cpu is what service, helper and server used so far.
func (c *measured) cpu() [3]time.Duration {
	c.b.Helper()
	var all [3]time.Duration
	for i, p := range []*e2e.Process{c.Service(), c.helper, c.Server()} {
		f, err := footprintOf(p.PID())
		c.must(err)
		all[i] = f.cpu
	}
	return all
}
