package main

import (
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"testing"
	"time"

	"smime-agent/server-stub/store/pgtest"
)

// overTLS founds two servers that reach the database by the given hosts with
// TLS, whose certificate they check against the CA's file and the name.
func overTLS(t *testing.T, cluster *pgtest.Cluster, hosts, ports, database, caFile string) *several {
	t.Helper()
	dsn := fmt.Sprintf("host=%s port=%s user=smime dbname=%s sslmode=verify-full sslrootcert=%s", hosts, ports, database, caFile)
	return startSeveral(t, 2, []string{"--postgres", dsn, "--postgres-password-file", "db.password"}, func(_ int, dir string) {
		writeSecret(t, dir, "db.password", cluster.Password)
	})
}

// long leaves a test out where time is short, as under the race detector.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() && os.Getenv("SMIME_AGENT_REQUIRE") == "" {
		t.Skip("takes its time")
	}
}

// databaseStorm goes through rounds of joins and submissions at all servers, each
// with a fault in its midst. What was acknowledged stays so, and what was not
// completes when it is sent again, at any server; none of them is started anew.
func databaseStorm(t *testing.T, all *several, faults []func()) {
	t.Helper()
	first := joined(t, all.dirs[0], all.child[0].addr, oneToken(t, all.dirs[0], all.child[0].addr))
	var orders []*order
	for round, fault := range faults {
		fresh := all.storm(t, all.as(t, first), round)
		for range mathrand.IntN(len(fresh.orders) / 2) {
			<-fresh.answered
		}
		fault()
		fresh.wait()
		orders = append(orders, fresh.orders...)
		for i := range all.child {
			all.settle(t, round, first, fresh.orders, i)
		}
	}
	for i := range all.child {
		verifyStorm(t, all.dirs[i], all.child[i].addr, orders)
	}
	all.tokensUsedOnce(t, len(orders)/4+1)
	for _, c := range all.child {
		c.stop(t)
	}
}

// TestDatabaseFaultsInTheStorm: with TLS to the database, all sessions are ended
// there again and again, it is restarted, it crashes, and it stands still for a
// while.
func TestDatabaseFaultsInTheStorm(t *testing.T) {
	long(t)
	cluster := pgtest.Start(t)
	caFile := cluster.Secure(t)
	dsn := cluster.Database(t)
	all := overTLS(t, cluster, "localhost", cluster.Port(), pgtest.NameOf(t, dsn), caFile)
	ended := 0
	databaseStorm(t, all, []func(){
		func() {
			for range 10 {
				ended += cluster.EndSessions(t, dsn)
				time.Sleep(20 * time.Millisecond)
			}
		},
		func() { cluster.Restart(t) },
		func() { cluster.Halt(t); cluster.Begin(t) },
		func() {
			thaw := cluster.Freeze(t)
			time.Sleep(3 * time.Second)
			thaw()
		},
	})
	if ended == 0 {
		t.Error("no session was ended: the storm did not reach the database")
	}
}

// TestFailover: the primary is lost in the midst of a storm, and a standby that
// it waited for takes over. The servers find it by themselves.
func TestFailover(t *testing.T) {
	long(t)
	primary := pgtest.Start(t)
	caFile := primary.Secure(t)
	dsn := primary.Database(t)
	standby := primary.Standby(t)
	all := overTLS(t, primary, "localhost,localhost", primary.Port()+","+standby.Port(), pgtest.NameOf(t, dsn), caFile)
	databaseStorm(t, all, []func(){func() {
		primary.Halt(t)
		standby.Promote(t)
	}})
}

// TestSplit: a standby takes over in the midst of a storm while the primary runs on,
// and both are there for the servers. They leave the old one by themselves, and nothing
// acknowledged is lost.
func TestSplit(t *testing.T) {
	long(t)
	primary := pgtest.Start(t)
	caFile := primary.Secure(t)
	dsn := primary.Database(t)
	standby := primary.Standby(t)
	all := overTLS(t, primary, "localhost,localhost", primary.Port()+","+standby.Port(), pgtest.NameOf(t, dsn), caFile)
	databaseStorm(t, all, []func(){func() { standby.Promote(t) }})
	primary.Exec(t, dsn, "select 1") // it ran on
}
