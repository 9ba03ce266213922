package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
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
// share the machine. Rounds of floors alternate with those of calls.
func BenchmarkServerCPU(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("issue/callers=%d", callers), func(b *testing.B) { benchIssue(b, callers, found(b)) })
		b.Run(fmt.Sprintf("issue-postgres/callers=%d", callers), func(b *testing.B) {
			benchIssue(b, callers, found(b, "--postgres", pgtest.Shared(b).Database(b)))
		})
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("poll/callers=%d", callers), func(b *testing.B) { benchPoll(b, callers, found(b)) })
		b.Run(fmt.Sprintf("poll-postgres/callers=%d", callers), func(b *testing.B) {
			benchPoll(b, callers, found(b, "--postgres", pgtest.Shared(b).Database(b)))
		})
	}
	for _, callers := range []int{8, 64} {
		b.Run(fmt.Sprintf("new-connection/callers=%d", callers), func(b *testing.B) { benchNewConnections(b, callers) })
	}
}

// BenchmarkClients has devices with real identities over real TLS on the loopback:
// they connect, report, submit and collect nothing more while their connections
// stay open; 64 at a time, or all at the same moment, as after a partition. Who is turned
// away comes again as agents do. It says how long the slowest waited, how often somebody was turned
// away, what the server's memory was at most, and what a connection that stays costs
// in it. STUB_CLIENTS sets the number of those who come at the same moment.
func BenchmarkClients(b *testing.B) {
	crowd := 5000
	if text := os.Getenv("STUB_CLIENTS"); text != "" {
		var err error
		if crowd, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("clients=2000/at-once=64", func(b *testing.B) { benchClients(b, 2000, 64) })
	b.Run(fmt.Sprintf("clients=%[1]d/at-once=%[1]d", crowd), func(b *testing.B) { benchClients(b, crowd, crowd) })
}

func benchClients(b *testing.B, clients, callers int) {
	for range b.N {
		dir := found(b)
		c := serve(b, dir)
		machines := fleetOf(b, dir, c.addr, clients, 8)
		requests := make([][]byte, clients)
		for i := range requests {
			_, requests[i] = newCSR(b)
		}
		resident := serverMemory(b, c)
		var turnedAway atomic.Int64
		begin, cpu := time.Now(), serverCPU(b, c)
		took := atOnce(b, clients, callers, func(i int) error {
			return patiently(b, &turnedAway, func() error {
				m := machines[i]
				conn := dialTest(b, dir, c.addr, &m.identity)
				m.ControlServiceClient = controlv1.NewControlServiceClient(conn)
				users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
				_, err := m.Sync(b.Context(), &controlv1.SyncRequest{Users: users})
				if err == nil {
					_, err = m.Submit(b.Context(), wanted(0, requests[i]))
				}
				if err != nil {
					_ = conn.Close()
				}
				return err
			})
		})
		b.ReportMetric(float64(clients)/time.Since(begin).Seconds(), "enrollments/s")
		b.ReportMetric(float64((serverCPU(b, c)-cpu).Microseconds())/float64(clients), "server-µs/enrollment")
		b.ReportMetric(float64(serverMemory(b, c)-resident)/float64(clients), "server-B/connection")
		b.ReportMetric(float64(peakMemory(b, c))/(1<<20), "server-peak-MB")
		b.ReportMetric(float64(turnedAway.Load())/float64(clients), "turned-away/client")
		reportSpread(b, took)
		c.kill(b)
	}
}

// patiently calls until it is not turned away, with the waits of agents: half of a
// bound and up to the whole, which begins with 5 s and doubles.
func patiently(b *testing.B, turnedAway *atomic.Int64, call func() error) error {
	for bound := 5 * time.Second; ; bound *= 2 {
		err := call()
		code := status.Code(err)
		if code != codes.Unavailable && code != codes.ResourceExhausted || b.Context().Err() != nil {
			return err
		}
		turnedAway.Add(1)
		time.Sleep(bound/2 + rand.N(bound/2))
	}
}

// peakMemory is the most that the child had resident, in bytes.
func peakMemory(b *testing.B, c *child) int64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	kB, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB << 10
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
// The goal is one for a storm of enrollments, as the figure is that it was set by (64
// at once): then many certificates share the two syncs of a transaction. With 8 at once each nearly
// has its own, which none of the parts has.
func benchNewConnections(b *testing.B, callers int) {
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
	round := 8 * callers
	n := 0
	used := map[string]time.Duration{}
	measure := func(kind string, do func(i int) error) {
		begin := serverCPU(b, c)
		atOnce(b, round, callers, do)
		used[kind] += serverCPU(b, c) - begin
	}
	for b.Loop() {
		requests := make([][]byte, round)
		for i := range requests {
			_, requests[i] = newCSR(b)
		}
		submit := func(client controlv1.ControlServiceClient, i int) error {
			_, err := client.Submit(b.Context(), wanted(n+i, requests[i]))
			return err
		}
		measure("poll", func(int) error { return fresh(poll) })
		measure("issue", func(i int) error {
			return fresh(func(client controlv1.ControlServiceClient) error { return submit(client, i) })
		})
		measure("kept-poll", func(int) error { return poll(m) })
		used["floor"] += time.Duration(round) * floorCPU(b)
		measure("handshake", func(int) error { return shakeHands(b, dir, c.addr, &m.identity) })
		n += round
		for i := range requests {
			_, requests[i] = newCSR(b)
		}
		measure("kept-issue", func(i int) error { return submit(m, i) })
		n += round
	}
	c.kill(b)
	for kind, d := range used {
		b.ReportMetric(float64((d / time.Duration(n/2)).Microseconds()), kind+"-µs")
	}
	b.ReportMetric(float64(used["issue"])/float64(used["poll"]+used["kept-poll"]+used["floor"]), "×parts")
}

// shakeHands makes a TLS connection and closes it as soon as the server has greeted.
func shakeHands(b *testing.B, dir, addr string, identity *tls.Certificate) error {
	certs, err := ca.ReadCertificates(filepath.Join(dir, "transport/ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certs[0])
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{*identity}, NextProtos: []string{"h2"},
	}}
	conn, err := dialer.DialContext(b.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 64)) // the server's settings: it has taken the certificate
	return errors.Join(err, conn.Close())
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
	var took []time.Duration
	var each, floor, wall time.Duration
	parts := 0
	b.ResetTimer()
	for part := range slices.Chunk(requests, max(32*callers, 512)) {
		b.StopTimer()
		floor += floorCPU(b)
		first := len(took)
		begin := serverCPU(b, c)
		b.StartTimer()
		began := time.Now()
		took = append(took, atOnce(b, len(part), callers, func(i int) error {
			_, err := machines[i%len(machines)].Submit(b.Context(), wanted(first+i, part[i]))
			return err
		})...)
		wall += time.Since(began)
		each += serverCPU(b, c) - begin
		parts++
	}
	b.StopTimer()
	floor, each = floor/time.Duration(parts), each/time.Duration(b.N)
	reportSpread(b, took)
	b.ReportMetric(float64(each.Microseconds()), "server-µs/op")
	b.ReportMetric(float64(each)/float64(floor), "×floor")
	b.ReportMetric(float64(b.N)/wall.Seconds(), "certificates/s")
	c.kill(b)
}

// benchPoll is a poll with nothing new, beside a call that gRPC answers by itself, since
// there is no such method: what the one costs more is ours. Rounds alternate. The goal is
// one for a server that is busy, as the figure is that it was set by (23,000 polls a second
// on two cores): a lone caller has the server's threads sleep and wake for each of its polls.
func benchPoll(b *testing.B, callers int, dir string) {
	c := serve(b, dir)
	machines := make([]*machine, min(callers, 8))
	connections := make([]*grpc.ClientConn, len(machines))
	users := []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}
	request := &controlv1.SyncRequest{Users: users}
	for i := range machines {
		m := joined(b, dir, c.addr, oneToken(b, dir, c.addr))
		connections[i] = dialTest(b, dir, c.addr, &m.identity)
		m.ControlServiceClient = controlv1.NewControlServiceClient(connections[i])
		machines[i] = m
		first, err := m.Sync(b.Context(), request)
		if err != nil {
			b.Fatal(err)
		}
		request = &controlv1.SyncRequest{Users: users, PolicyRevision: first.GetPolicyRevision()}
	}
	poll := func(i int) error {
		_, err := machines[i%len(machines)].Sync(b.Context(), request)
		return err
	}
	bare := func(i int) error {
		err := connections[i%len(machines)].Invoke(b.Context(), "/control.v1.ControlService/Nothing", request, new(controlv1.SyncResponse))
		if status.Code(err) != codes.Unimplemented {
			return errors.Join(errors.New("a method that there is not answers"), err)
		}
		return nil
	}
	const round = 2000
	used := map[string]time.Duration{}
	var floor time.Duration
	rounds := 0
	for b.Loop() {
		for kind, call := range map[string]func(int) error{"poll": poll, "bare-call": bare} {
			begin := serverCPU(b, c)
			atOnce(b, round, callers, call)
			used[kind] += serverCPU(b, c) - begin
		}
		floor += floorCPU(b)
		rounds++
	}
	calls := float64(rounds * round)
	for kind, d := range used {
		b.ReportMetric(float64(d.Microseconds())/calls, "server-µs/"+kind)
	}
	b.ReportMetric(float64(floor.Microseconds())/float64(rounds), "floor-µs")
	b.ReportMetric(float64(used["poll"])/calls/(float64(floor)/float64(rounds)), "×floor")
	c.kill(b)
}
