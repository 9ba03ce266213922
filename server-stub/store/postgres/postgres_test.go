package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/pgtest"
	"smime-agent/server-stub/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func open(t testing.TB, dsn string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	cluster := pgtest.Shared(t)
	storetest.Run(t, func(t testing.TB) storetest.Open {
		dsn := cluster.Database(t)
		return func(t testing.TB) store.Store { return open(t, dsn) }
	})
}

// TestRaceOverThree has the racers of one token come in by three servers, which
// were all started at once over an empty database.
func TestRaceOverThree(t *testing.T) {
	cluster := pgtest.Shared(t)
	dsn := cluster.Database(t)
	var servers [3]*Store
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() {
			var err error
			if servers[i], err = Open(t.Context(), Config{DSN: dsn}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	storetest.Race(t, 100, func(racer int) store.Store { return servers[racer%3] })
	for _, s := range servers {
		_ = s.Close()
	}
}

// TestEveryBucketHasATable needs no database: a bucket is added together with a migration.
func TestEveryBucketHasATable(t *testing.T) {
	entries, err := migrations.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, entry := range entries {
		text, err := migrations.ReadFile("migrations/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, bucket := range store.Buckets() {
		if !strings.Contains(all.String(), fmt.Sprintf("create table %-12s (key bytea primary key, value bytea not null)", bucket)) {
			t.Errorf("no migration makes a table for the bucket %s", bucket)
		}
	}
}

func TestDSNIsJudged(t *testing.T) {
	for _, c := range []struct{ dsn, want string }{
		{"postgres://smime:secret@localhost/smime", "has a password in it"},
		{"host=localhost dbname=smime Password = secret", "has a password in it"},
		{"postgres://localhost/smime?password=secret", "has a password in it"},
		{"host=db.example.com dbname=smime", "without checking who it is"},
		{"host=db.example.com dbname=smime sslmode=require", "without checking who it is"},
		{"host=127.0.0.1,db.example.com dbname=smime", "without checking who it is"},
		{"host", "cannot be read"},
		{"host=db.example.com dbname=smime sslmode=verify-full", ""},
		{"host=a.example.com,b.example.com dbname=smime sslmode=verify-full", ""},
		{"host=/run/postgresql dbname=smime", ""},
		{"host=/run/postgresql dbname=smime default_query_exec_mode=simple_protocol", "default_query_exec_mode"},
		{"host=/run/postgresql dbname=smime default_query_exec_mode=exec", "default_query_exec_mode"},
		{"host=/run/postgresql dbname=smime default_query_exec_mode=cache_describe", ""},
		{"host=::1 dbname=smime", ""},
	} {
		_, err := parse(Config{DSN: c.dsn})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.dsn, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
}

// TestUnusableDatabases: each gets one sentence of what is wrong.
func TestUnusableDatabases(t *testing.T) {
	cluster := pgtest.Start(t)
	newer := cluster.Database(t)
	open(t, newer)
	cluster.Exec(t, newer, "insert into goose_db_version (version_id, is_applied) values (99, true)")
	over := cluster.Over(t, newer, cluster.Addr)
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{DSN: newer}, "its schema is version 99, and this server knows"},
		{Config{DSN: cluster.DSN("nowhere")}, "does not exist; create it with createdb"},
		{Config{DSN: over, Password: "wrong"}, "does not let us in"},
		{Config{DSN: cluster.Over(t, newer, "127.0.0.1:1"), Password: "x"}, "the database does not answer"},
	} {
		s, err := Open(t.Context(), c.config)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.config.DSN, err, c.want)
		}
	}
	lazy := cluster.Database(t)
	config, err := parse(Config{DSN: lazy})
	if err != nil {
		t.Fatal(err)
	}
	cluster.Exec(t, lazy, "alter database "+config.ConnConfig.Database+" set synchronous_commit = off")
	var how string
	if err := open(t, lazy).writes.QueryRow(t.Context(), "show synchronous_commit").Scan(&how); err != nil || how != "on" {
		t.Errorf("commits are acknowledged with synchronous_commit %q, %v", how, err)
	}
	cluster.Exec(t, newer, "alter system set full_page_writes = off")
	cluster.Halt(t)
	cluster.Begin(t)
	if s, err := Open(t.Context(), Config{DSN: lazy}); err == nil || !strings.Contains(err.Error(), "turn both on") {
		if err == nil {
			_ = s.Close()
		}
		t.Errorf("a database that loses what it acknowledged gives %v", err)
	}
	cluster.Exec(t, newer, "alter system reset full_page_writes")
	cluster.Halt(t)
	cluster.Begin(t)
	if err := open(t, cluster.Database(t)).Snapshot(io.Discard); !errors.Is(err, store.ErrNoSnapshot) {
		t.Errorf("a snapshot gives %v", err)
	}
}

// TestTLS: the way to the database is encrypted, and an answer of somebody else is
// not believed. Without TLS the database here takes nobody.
func TestTLS(t *testing.T) {
	cluster, other := pgtest.Start(t), pgtest.Start(t)
	caFile, otherCA := cluster.Secure(t), other.Secure(t)
	database := pgtest.NameOf(t, cluster.Database(t))
	dsn := func(host, port, more string) string {
		return fmt.Sprintf("host=%s port=%s user=smime dbname=%s %s", host, port, database, more)
	}
	full := "sslmode=verify-full sslrootcert=" + caFile
	for _, c := range []struct{ dsn, want string }{
		{dsn("localhost", cluster.Port(), full), ""},
		{dsn("localhost", cluster.Port(), "sslmode=verify-full sslrootcert="+otherCA), "check sslrootcert"},
		{dsn("127.0.0.1", cluster.Port(), full), "check sslrootcert"}, // its certificate is for localhost
		{dsn("localhost", other.Port(), full), "check sslrootcert"},
		{dsn("127.0.0.1", cluster.Port(), "sslmode=disable"), "does not let us in"},
	} {
		s, err := Open(t.Context(), Config{DSN: c.dsn, Password: cluster.Password})
		if err == nil {
			encrypted(t, s)
			_ = s.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.dsn, err, c.want)
		}
	}
}

// encrypted asks the database how it is spoken with.
func encrypted(t *testing.T, s *Store) {
	t.Helper()
	for _, pool := range []*pgxpool.Pool{s.reads, s.writes} {
		var version string
		err := pool.QueryRow(t.Context(), "select coalesce(version, 'none') from pg_stat_ssl where pid = pg_backend_pid()").Scan(&version)
		if err != nil || version != "TLSv1.3" {
			t.Errorf("the database is spoken with by %q, %v", version, err)
		}
	}
}

// TestCrashesOfTheDatabase stops it again and again, as a crash does, while
// writes come in. What was acknowledged is there, and the store comes back by itself.
func TestCrashesOfTheDatabase(t *testing.T) {
	cluster := pgtest.Start(t)
	s := open(t, cluster.Database(t))
	acknowledged := map[int]bool{}
	var mu sync.Mutex
	next := 0
	for range 3 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wrote := make(chan struct{}, 10000)
		for range 16 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					mu.Lock()
					n := next
					next++
					mu.Unlock()
					err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Keys, fmt.Append(nil, n), []byte("x")) })
					switch {
					case err == nil:
						mu.Lock()
						acknowledged[n] = true
						mu.Unlock()
						select {
						case wrote <- struct{}{}:
						default:
						}
					case !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOverloaded):
						t.Errorf("write %d: %v", n, err)
						return
					}
				}
			})
		}
		for range 200 {
			<-wrote
		}
		cluster.Halt(t)
		close(stop)
		wg.Wait()
		cluster.Begin(t)
	}
	var missing int
	err := s.View(func(tx store.Tx) error {
		for n := range acknowledged {
			if tx.Get(store.Keys, fmt.Append(nil, n)) == nil {
				missing++
			}
		}
		return nil
	})
	if err != nil || missing > 0 {
		t.Errorf("%d of %d acknowledged writes are lost, %v", missing, len(acknowledged), err)
	}
	t.Logf("%d acknowledged writes over 3 crashes", len(acknowledged))
}

// TestWords: what is told is heard by all once it is committed, and only then;
// after a break everyone is told that words were missed.
func TestWords(t *testing.T) {
	cluster := pgtest.Shared(t)
	dsn := cluster.Database(t)
	wire := pgtest.NewWire(t, cluster.Addr)
	speaker := open(t, dsn)
	listener, err := Open(t.Context(), Config{DSN: cluster.Over(t, dsn, wire.Addr), Password: cluster.Password})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	heard, missed := make(chan string, 10), make(chan struct{}, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		listener.Listen(ctx, func(word string) { heard <- word }, func() { missed <- struct{}{} })
	})
	t.Cleanup(func() { cancel(); wg.Wait(); _ = listener.Close() })
	<-missed
	refused := errors.New("refused")
	if err := speaker.Update(t.Context(), func(tx store.Tx) error { store.Tell(tx, "not"); return refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	say := func(word string) {
		if err := speaker.Update(t.Context(), func(tx store.Tx) error { store.Tell(tx, word); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	say("policy")
	if word := <-heard; word != "policy" {
		t.Errorf("heard %q", word)
	}
	wire.Cut()
	if err := listener.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Meta, []byte("x"), nil) }); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("who is cut off gets %v", err)
	}
	say("lost")
	wire.Mend()
	<-missed
	if err := listener.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Meta, []byte("x"), nil) }); err != nil {
		t.Errorf("who was cut off does not come back: %v", err)
	}
}

// TestSilentNetwork: a network that swallows everything holds a call up for a
// bounded time, and is forgotten when it is over.
func TestSilentNetwork(t *testing.T) {
	cluster := pgtest.Shared(t)
	dsn := cluster.Database(t)
	wire := pgtest.NewWire(t, cluster.Addr)
	s, err := Open(t.Context(), Config{DSN: cluster.Over(t, dsn, wire.Addr), Password: cluster.Password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	write := func() error {
		return s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Meta, []byte("x"), nil) })
	}
	read := func() error {
		return s.View(func(tx store.Tx) error { tx.Get(store.Meta, []byte("x")); return nil })
	}
	if err := errors.Join(write(), read()); err != nil {
		t.Fatal(err)
	}
	flow := wire.Stall()
	begin := time.Now()
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{"write": write, "read": read} {
		wg.Go(func() {
			if err := call(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("a %s into a silent network gives %v", name, err)
			}
		})
	}
	wg.Wait()
	t.Logf("held up for %v", time.Since(begin).Round(time.Second))
	flow()
	if err := errors.Join(write(), read()); err != nil {
		t.Errorf("once the network is back: %v", err)
	}
}

// TestHangingServer: one that stops in the midst of its turn holds the others up
// for a bounded time. It is a connection here that holds the writers' lock and says nothing.
func TestHangingServer(t *testing.T) {
	if testing.Short() && os.Getenv("SMIME_AGENT_REQUIRE") == "" {
		t.Skip("waits for the database's timeout")
	}
	cluster := pgtest.Shared(t)
	dsn := cluster.Database(t)
	s := open(t, dsn)
	hanging := open(t, dsn)
	conn, err := hanging.writes.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{"begin", fmt.Sprintf("select pg_advisory_xact_lock(%d)", writeLock)} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Meta, []byte("x"), nil) }); err != nil {
		t.Errorf("behind a server that hangs: %v", err)
	}
	t.Logf("held up for %v", time.Since(begin).Round(time.Second))
	if _, err := conn.Exec(t.Context(), "commit"); err == nil {
		t.Error("the server that hung still commits")
	}
}
