package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"slices"
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
	b.Run("new-connection/poll", func(b *testing.B) { benchNewConnections(b, false) })
	b.Run("new-connection/issue", func(b *testing.B) { benchNewConnections(b, true) })
}

// clients is how many devices there are with an identity and a TLS connection of
// their own, and callers how many of them call at once.
const (
	clients = 2000
	callers = 64
)

// BenchmarkClients has 2,000 devices with real identities over real TLS on the
// loopback: all come at once, connect, report, submit and collect nothing more
// while their connections stay open. It says how long the slowest waited, and
// what a connection that stays costs the server in memory.
func BenchmarkClients(b *testing.B) {
	for range b.N {
		dir := found(b)
		c := serve(b, dir)
		machines := fleetOf(b, dir, c.addr, clients)
		resident := serverMemory(b, c)
		begin, cpu := time.Now(), serverCPU(b, c)
		took := atOnce(b, len(machines), callers, func(i int) error {
			machines[i].dial(b, dir, c.addr)
			users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
			if _, err := machines[i].Sync(b.Context(), &controlv1.SyncRequest{Users: users}); err != nil {
				return err
			}
			_, csr := newCSR(b)
			_, err := machines[i].Submit(b.Context(), wanted(0, csr))
			return err
		})
		b.ReportMetric(float64(clients)/time.Since(begin).Seconds(), "enrollments/s")
		b.ReportMetric(float64((serverCPU(b, c)-cpu).Microseconds())/clients, "server-µs/enrollment")
		b.ReportMetric(float64(serverMemory(b, c)-resident)/clients, "server-B/connection")
		reportSpread(b, took)
		c.kill(b)
	}
}

// fleetOf lets devices in, without their connections.
func fleetOf(b *testing.B, dir, addr string, n int) []*machine {
	b.Helper()
	out, err := cli(b, "token", "create", "--dir", dir, "--server", addr, "--uses", strconv.Itoa(n))
	if err != nil {
		b.Fatal(err)
	}
	token := strings.Fields(out)[0]
	conn := dialTest(b, dir, addr, nil)
	machines := make([]*machine, n)
	atOnce(b, n, 8, func(i int) error {
		key, csr := newCSR(b)
		resp, err := controlv1.NewControlServiceClient(conn).Join(b.Context(), &controlv1.JoinRequest{Token: token, Csr: csr})
		machines[i] = &machine{id: resp.GetDeviceId(), identity: tls.Certificate{Certificate: resp.GetChain(), PrivateKey: key}}
		return err
	})
	return machines
}

// atOnce does n things, so many at a time, and gives what each took.
func atOnce(b *testing.B, n, callers int, do func(i int) error) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, callers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				begin := time.Now()
				if err := do(int(i)); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return took
}

// reportSpread says how far the slow ones are from the middle.
func reportSpread(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99)/float64(p50), "p99/p50")
}

// serverMemory is what the child has resident, in bytes.
func serverMemory(b *testing.B, c *child) int64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// benchNewConnections is what one call costs the server's process with a TLS
// handshake of its own: a poll, or a durable issue.
func benchNewConnections(b *testing.B, issue bool) {
	dir := found(b)
	c := serve(b, dir)
	m := joined(b, dir, c.addr, oneToken(b, dir, c.addr))
	requests := make([][]byte, b.N)
	for i := range requests {
		_, requests[i] = newCSR(b)
	}
	begin := serverCPU(b, c)
	b.ResetTimer()
	atOnce(b, b.N, 8, func(i int) error {
		conn := dialTest(b, dir, c.addr, &m.identity)
		defer func() { _ = conn.Close() }()
		client := controlv1.NewControlServiceClient(conn)
		if issue {
			_, err := client.Submit(b.Context(), wanted(i, requests[i]))
			return err
		}
		_, err := client.Sync(b.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}})
		return err
	})
	b.StopTimer()
	b.ReportMetric(float64((serverCPU(b, c)-begin).Microseconds())/float64(b.N), "server-µs/op")
	c.kill(b)
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
	begin := serverCPU(b, c)
	b.ResetTimer()
	took := atOnce(b, len(requests), callers, func(i int) error {
		_, err := machines[i%len(machines)].Submit(b.Context(), wanted(i, requests[i]))
		return err
	})
	b.StopTimer()
	reportSpread(b, took)
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
