package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store/pgtest"
)

// serverCPU reads what the child used so far, user and system, from its stat
// file; a tick is 10 ms.
func serverCPU(b *testing.B, c *child) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] { // utime and stime, proc(5)
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// BenchmarkServerCPU is what a durable issue and a poll cost the server's own
// process, over mTLS on the loopback. PostgreSQL's own processes are not counted, but they
// share the machine. Hold it beside BenchmarkFloor of the same run.
func BenchmarkServerCPU(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("issue/callers=%d", callers), func(b *testing.B) { benchIssue(b, callers, found(b)) })
		b.Run(fmt.Sprintf("issue-postgres/callers=%d", callers), func(b *testing.B) {
			benchIssue(b, callers, found(b, "--postgres", pgtest.Shared(b).Database(b)))
		})
	}
	b.Run("poll", func(b *testing.B) { benchPoll(b, found(b)) })
	b.Run("poll-postgres", func(b *testing.B) { benchPoll(b, found(b, "--postgres", pgtest.Shared(b).Database(b))) })
}

func benchIssue(b *testing.B, callers int, dir string) {
	c := serve(b, dir)
	machines := make([]*machine, min(callers, 8))
	for i := range machines {
		machines[i] = joined(b, dir, c.addr, oneToken(b, dir, c.addr))
	}
	requests := make([][]byte, b.N)
	for i := range requests {
		_, requests[i] = newCSR(b)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := serverCPU(b, c)
	b.ResetTimer()
	for w := range callers {
		wg.Go(func() {
			m := machines[w%len(machines)]
			for i := next.Add(1) - 1; i < int64(len(requests)); i = next.Add(1) - 1 {
				if _, err := m.Submit(b.Context(), wanted(int(i), requests[i])); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((serverCPU(b, c)-begin).Microseconds())/float64(b.N), "server-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
	c.kill(b)
}

func benchPoll(b *testing.B, dir string) {
	c := serve(b, dir)
	m := joined(b, dir, c.addr, oneToken(b, dir, c.addr))
	users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
	first, err := m.Sync(b.Context(), &controlv1.SyncRequest{Users: users})
	if err != nil {
		b.Fatal(err)
	}
	begin := serverCPU(b, c)
	b.ResetTimer()
	for range b.N {
		if _, err := m.Sync(b.Context(), &controlv1.SyncRequest{Users: users, PolicyRevision: first.GetPolicyRevision()}); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((serverCPU(b, c)-begin).Microseconds())/float64(b.N), "server-µs/op")
	c.kill(b)
}
