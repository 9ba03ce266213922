package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/pgtest"
)

// TestKillStormOverPostgres is TestKillStorm with the records in PostgreSQL.
func TestKillStormOverPostgres(t *testing.T) {
	dir := found(t, "--postgres", pgtest.Shared(t).Database(t))
	killStorm(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "records.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("records.db is there too: %v", err)
	}
}

// several servers over one database.
type several struct {
	dirs  []string
	child []*child
}

// startSeveral starts the first over the database, and others with copies of its
// directory, each changed before it starts.
func startSeveral(t *testing.T, n int, init []string, change func(i int, dir string)) *several {
	t.Helper()
	all := &several{dirs: []string{found(t, init...)}}
	for i := range n {
		if i > 0 {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(all.dirs[0])); err != nil {
				t.Fatal(err)
			}
			all.dirs = append(all.dirs, dir)
		}
		if change != nil {
			change(i, all.dirs[i])
		}
		all.child = append(all.child, serve(t, all.dirs[i]))
	}
	return all
}

// as connects one device with each of the servers.
func (a *several) as(t *testing.T, first *machine) []*machine {
	t.Helper()
	var at []*machine
	for i, c := range a.child {
		m := *first
		m.dial(t, a.dirs[i], c.addr)
		at = append(at, &m)
	}
	return at
}

// cutOff has a server go to the database by another address, with a password.
func cutOff(t *testing.T, dir, dsn, over, password string) {
	t.Helper()
	path := filepath.Join(dir, "server.yaml")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(config), dsn, over)
	text = strings.Replace(text, `password_file: ""       # in this directory, readable by the server alone; empty`, `password_file: "db.password"       # in this directory, readable by the server alone; empty`, 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	writeSecret(t, dir, "db.password", password)
}

func writeSecret(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.WriteFile(path, []byte(text+"\n"), 0o600), os.Chmod(path, 0o600)); err != nil { // a copy of a folder has other modes
		t.Fatal(err)
	}
}

// TestThreeServersStorm: machines join and submit at three servers at once. In
// the midst of it one is killed, and one is cut off from the database. What was
// acknowledged must be so at every server, and what was not must complete at any.
func TestThreeServersStorm(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	cluster := pgtest.Shared(t)
	dsn := cluster.Database(t)
	wire := pgtest.NewWire(t, cluster.Addr)
	all := startSeveral(t, 3, []string{"--postgres", dsn}, func(i int, dir string) {
		if i == 2 {
			cutOff(t, dir, dsn, cluster.Over(t, dsn, wire.Addr), cluster.Password)
		}
	})
	first := joined(t, all.dirs[0], all.child[0].addr, oneToken(t, all.dirs[0], all.child[0].addr))
	var orders []*order
	for round := range rounds {
		fresh := all.storm(t, all.as(t, first), round)
		for range mathrand.IntN(len(fresh.orders)) {
			<-fresh.answered
		}
		victim := round % 2 // never the one that is cut off, so that both faults are there at once
		wire.Cut()
		all.child[victim].kill(t)
		fresh.wait()
		orders = append(orders, fresh.orders...)
		all.settle(t, round, first, fresh.orders, 1-victim)
		wire.Mend()
		all.child[victim] = serve(t, all.dirs[victim])
		all.settle(t, round, first, fresh.orders, victim)
		all.settle(t, round, first, fresh.orders, 2)
	}
	for i := range all.child {
		verifyStorm(t, all.dirs[i], all.child[i].addr, orders)
	}
	all.tokensUsedOnce(t, len(orders)/4+1)
	for _, c := range all.child {
		c.stop(t)
	}
}

// storm begins 12 joins and 36 submissions, in turn at the servers.
func (a *several) storm(t *testing.T, at []*machine, round int) wave {
	t.Helper()
	var w wave
	for n := range 48 {
		_, csr := newCSR(t)
		if n%4 == 0 {
			token := oneToken(t, a.dirs[0], a.child[0].addr)
			w.orders = append(w.orders, &order{join: &controlv1.JoinRequest{Token: token, Csr: csr}})
			continue
		}
		w.orders = append(w.orders, &order{submit: wanted(1000*(round+1)+n, csr)})
	}
	w.answered = make(chan struct{}, len(w.orders))
	var wg sync.WaitGroup
	for n, o := range w.orders {
		i := n % len(at)
		anonymous := controlv1.NewControlServiceClient(dialTest(t, a.dirs[i], a.child[i].addr, nil))
		wg.Go(func() {
			defer func() { w.answered <- struct{}{} }()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_ = o.send(ctx, anonymous, at[i]) // unanswered is what the test is about
		})
	}
	w.wait = wg.Wait
	return w
}

// settle sends everything again at one server. A server that was cut off may
// need a moment to come back, as agents give it; it must not need long.
func (a *several) settle(t *testing.T, round int, first *machine, orders []*order, i int) {
	t.Helper()
	m := *first
	m.dial(t, a.dirs[i], a.child[i].addr)
	anonymous := controlv1.NewControlServiceClient(dialTest(t, a.dirs[i], a.child[i].addr, nil))
	unanswered := 0
	for _, o := range orders {
		if o.acknowledged == "" {
			unanswered++
		}
		err := o.send(t.Context(), anonymous, &m)
		for tries := 0; err != nil && tries < 20; tries++ {
			time.Sleep(100 * time.Millisecond)
			err = o.send(t.Context(), anonymous, &m)
		}
		if err != nil {
			t.Errorf("round %d: a retry at server %d does not complete: %v", round+1, i+1, err)
		}
	}
	t.Logf("round %d: server %d, %d of %d were unanswered", round+1, i+1, unanswered, len(orders))
}

// tokensUsedOnce: each join burned one token once, and no other.
func (a *several) tokensUsedOnce(t *testing.T, joins int) {
	t.Helper()
	var devices []json.RawMessage
	if err := json.Unmarshal([]byte(mustCLI(t, "devices", "--json", "--dir", a.dirs[1], "--server", a.child[1].addr)), &devices); err != nil {
		t.Fatal(err)
	}
	if len(devices) != joins {
		t.Errorf("%d devices for %d joins", len(devices), joins)
	}
	list := mustCLI(t, "token", "list", "--dir", a.dirs[1], "--server", a.child[1].addr)
	if n := strings.Count(list, "used up  1 of 1"); n != joins {
		t.Errorf("%d tokens were used once, want %d", n, joins)
	}
}

// TestStoreCopy moves a server's records into PostgreSQL, and what was issued before is known there.
func TestStoreCopy(t *testing.T) {
	cluster := pgtest.Shared(t)
	dir := found(t)
	c := serve(t, dir)
	m := joined(t, dir, c.addr, oneToken(t, dir, c.addr))
	serial := m.enroll(t, 1).SerialNumber.Text(16)
	name := func(dsn string) {
		t.Helper()
		path := filepath.Join(dir, "server.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, _ := strings.Cut(string(text), "  postgres: ")
		_, after, _ := strings.Cut(rest, "\n")
		if err := os.WriteFile(path, []byte(before+"  postgres: "+dsn+"\n"+after), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(want string) {
		t.Helper()
		if _, err := cli(t, "store", "copy", "--dir", dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("store copy gives %v, want %q", err, want)
		}
	}
	refused("names no database")
	dsn := cluster.Database(t)
	name(`"` + dsn + `"`)
	refused("another process has it open")
	c.stop(t)
	taken := cluster.Database(t)
	other := serve(t, found(t, "--postgres", taken))
	name(`"` + taken + `"`)
	refused("has records already")
	other.stop(t)
	name(`"` + dsn + `"`)
	out := mustCLI(t, "store", "copy", "--dir", dir)
	if !strings.Contains(out, "on both sides") {
		t.Errorf("store copy says %q", out)
	}
	c = serve(t, dir)
	m.dial(t, dir, c.addr)
	if _, err := m.Sync(t.Context(), &controlv1.SyncRequest{}); err != nil {
		t.Error(err)
	}
	if got := mustCLI(t, "ledger", "--dir", dir, "--server", c.addr); !strings.Contains(got, serial) {
		t.Errorf("the ledger does not have %s:\n%s", serial, got)
	}
	for _, command := range [][]string{{"backup", filepath.Join(t.TempDir(), "b")}, {"restore", "b"}} {
		_, err := cli(t, append(command, "--dir", dir, "--server", c.addr)...)
		if err == nil || !strings.Contains(err.Error(), store.ErrNoSnapshot.Error()) && !strings.Contains(err.Error(), "records are in PostgreSQL") {
			t.Errorf("%s gives %v", command[0], err)
		}
	}
	c.stop(t)
}

// TestPasswordFileIsPrivate: one that others can read is not used.
func TestPasswordFileIsPrivate(t *testing.T) {
	dir := found(t, "--postgres", "host=localhost dbname=smime", "--postgres-password-file", "db.password")
	if err := os.WriteFile(filepath.Join(dir, "db.password"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "db.password"), 0o644); err != nil { //nolint:gosec // that is what is wrong with it
		t.Fatal(err)
	}
	if _, err := cli(t, "serve", "--dir", dir); err == nil || !strings.Contains(err.Error(), "chmod 600 it") {
		t.Errorf("a password that others can read gives %v", err)
	}
}

// TestBackupOfTheDatabase: what docs/central-management.md says of backups is so.
func TestBackupOfTheDatabase(t *testing.T) {
	cluster := pgtest.Shared(t)
	dsn, restored := cluster.Database(t), cluster.Database(t)
	dir := found(t, "--postgres", dsn)
	c := serve(t, dir)
	m := joined(t, dir, c.addr, oneToken(t, dir, c.addr))
	serial := m.enroll(t, 1).SerialNumber.Text(16)
	dump := cluster.File("backup")
	cluster.Tool(t, "pg_dump", "--format=custom", "--file="+dump, "--dbname="+dsn) // while it serves
	c.stop(t)
	cluster.Tool(t, "pg_restore", "--exit-on-error", "--no-owner", "--dbname="+restored, dump)
	path := filepath.Join(dir, "server.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), dsn, restored)), 0o600); err != nil {
		t.Fatal(err)
	}
	c = serve(t, dir)
	if got := mustCLI(t, "ledger", "--dir", dir, "--server", c.addr); !strings.Contains(got, serial) {
		t.Errorf("the ledger does not have %s:\n%s", serial, got)
	}
	c.stop(t)
}
