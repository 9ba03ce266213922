//go:build linux

package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

const (
	// calm is the wait before an idle measurement: connections that nobody uses
	// are closed by then, and freed memory is given back.
	calm = 90 * time.Second
	// watched is how long an idle process is measured.
	watched = 3 * time.Minute
)

// BenchmarkIdle measures what service and helper cost while nothing happens,
// after an enrollment: a machine's usual state. Switches are voluntary ones of
// all threads.
func BenchmarkIdle(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), calm+watched+2*time.Minute)
	defer cancel()
	bin := programs(b)
	c := measuredWorld(b, bin, "auto", "p-256", 1)
	c.open(ctx)
	_, err := c.Agent(ctx, "approve", c.Employees[0].Mailbox)
	c.must(err)
	_, err = c.Await(ctx, "the proof", func(r status.Report) bool { return r.Credentials[0].State == enroll.Active })
	c.must(err)
	b.ReportMetric(0, "ns/op")
	c.idle(map[string]*e2e.Process{"service": c.Service(), "helper": c.helper})
	for _, program := range []string{"smime-agent", "smime-helper"} {
		info, err := os.Stat(filepath.Join(bin, program))
		c.must(err)
		b.ReportMetric(float64(info.Size())/1e6, program+"-MB")
	}
}

// BenchmarkLonelyHelper is a helper whose service is not there.
func BenchmarkLonelyHelper(b *testing.B) {
	c := measuredWorld(b, programs(b), "auto", "p-256", 1)
	var err error
	c.helper, err = c.StartHelper(e2e.HelperOptions{Account: c.account})
	c.must(err)
	b.ReportMetric(0, "ns/op")
	c.idle(map[string]*e2e.Process{"helper": c.helper})
}

func (c *measured) idle(processes map[string]*e2e.Process) {
	c.b.Helper()
	time.Sleep(calm)
	before := map[string]footprint{}
	for name, p := range processes {
		f, err := footprintOf(p.PID())
		c.must(err)
		before[name] = f
	}
	time.Sleep(watched)
	for name, p := range processes {
		f, err := footprintOf(p.PID())
		c.must(err)
		minutes := watched.Minutes()
		c.b.ReportMetric(float64(f.resident)/1e6, name+"-rss-MB")
		c.b.ReportMetric(float64(f.dirty)/1e6, name+"-dirty-MB")
		c.b.ReportMetric(float64(f.threads), name+"-threads")
		c.b.ReportMetric(float64(f.switches-before[name].switches)/minutes, name+"-switches/min")
		c.b.ReportMetric(ms(f.cpu-before[name].cpu)/minutes, name+"-cpu-ms/min")
	}
}
