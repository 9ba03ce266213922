package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/stub"
)

// serverCPU reads what the child's threads used so far, user and system, from
// their schedstat files: nanoseconds, where those of ps and top have ticks of 10 ms.
func serverCPU(b *testing.B, c *child) (used time.Duration) {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		b.Fatal("the server's threads are not to be seen: ", err)
	}
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		ns, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		used += time.Duration(ns)
	}
	return used
}

// floorCPU is the CPU time of a [stub.Floor] right now, on this machine as busy
// as a storm makes it: each core signs.
func floorCPU(b *testing.B) time.Duration {
	b.Helper()
	floor, err := stub.NewFloor()
	if err != nil {
		b.Fatal(err)
	}
	_, der := newCSR(b)
	used := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	const times = 2000
	begin := used()
	atOnce(b, times, runtime.NumCPU(), func(int) error { return floor.Issue(der) })
	return (used() - begin) / times
}

// BenchmarkServerCPU is what a durable issue and a poll cost the server's own
// process, over mTLS on the loopback. PostgreSQL's own processes are not counted, but they
// share the machine. The floor is taken before and after each run of many callers.
func BenchmarkServerCPU(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("issue/callers=%d", callers), func(b *testing.B) { benchIssue(b, callers, found(b)) })
		b.Run(fmt.Sprintf("issue-postgres/callers=%d", callers), func(b *testing.B) {
			benchIssue(b, callers, found(b, "--postgres", pgtest.Shared(b).Database(b)))
		})
	}
	b.Run("poll", func(b *testing.B) { benchPoll(b, found(b)) })
	b.Run("poll-postgres", func(b *testing.B) { benchPoll(b, found(b, "--postgres", pgtest.Shared(b).Database(b))) })
	b.Run("new-connection", benchNewConnections)
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
		machines := fleetOf(b, dir, c.addr, clients, 8)
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

// benchNewConnections is what an enrollment costs the server's process over a TLS
// connection of its own, beside what it is made of: a connection with a poll, a
// floor, and a call. Rounds of the kinds alternate, so that all meet the same machine.
func benchNewConnections(b *testing.B) {
	dir := found(b)
	c := serve(b, dir)
	m := joined(b, dir, c.addr, oneToken(b, dir, c.addr))
	users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
	poll := func(client controlv1.ControlServiceClient) error {
		_, err := client.Sync(b.Context(), &controlv1.SyncRequest{Users: users})
		return err
	}
	fresh := func(call func(controlv1.ControlServiceClient) error) error {
		conn := dialTest(b, dir, c.addr, &m.identity)
		defer func() { _ = conn.Close() }()
		return call(controlv1.NewControlServiceClient(conn))
	}
	const round = 64
	n := 0
	var issue, connect, call, floor time.Duration
	measure := func(do func(i int) error) time.Duration {
		begin := serverCPU(b, c)
		atOnce(b, round, 8, do)
		return serverCPU(b, c) - begin
	}
	for b.Loop() {
		requests := make([][]byte, round)
		for i := range requests {
			_, requests[i] = newCSR(b)
		}
		connect += measure(func(int) error { return fresh(poll) })
		issue += measure(func(i int) error {
			return fresh(func(client controlv1.ControlServiceClient) error {
				_, err := client.Submit(b.Context(), wanted(n+i, requests[i]))
				return err
			})
		})
		call += measure(func(int) error { return poll(m) })
		floor += round * floorCPU(b)
		n += round
	}
	c.kill(b)
	for name, d := range map[string]time.Duration{"issue": issue, "poll": connect, "kept-poll": call, "floor": floor} {
		b.ReportMetric(float64((d / time.Duration(n)).Microseconds()), name+"-µs")
	}
	b.ReportMetric(float64(issue)/float64(connect+call+floor), "×parts")
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
	floor := floorCPU(b)
	begin := serverCPU(b, c)
	b.ResetTimer()
	took := atOnce(b, len(requests), callers, func(i int) error {
		_, err := machines[i%len(machines)].Submit(b.Context(), wanted(i, requests[i]))
		return err
	})
	b.StopTimer()
	each := (serverCPU(b, c) - begin) / time.Duration(b.N)
	floor = (floor + floorCPU(b)) / 2
	reportSpread(b, took)
	b.ReportMetric(float64(each.Microseconds()), "server-µs/op")
	b.ReportMetric(float64(each)/float64(floor), "×floor")
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
