package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/pgtest"
)

// pair is a primary with its standby, and a database that both have.
type pair struct {
	primary, standby *pgtest.Cluster
	name             string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	if testing.Short() && os.Getenv("SMIME_AGENT_REQUIRE") == "" {
		t.Skip("waits for servers to look around")
	}
	t.Parallel()
	p := &pair{primary: pgtest.Start(t)}
	p.name = pgtest.NameOf(t, p.primary.Database(t))
	p.standby = p.primary.Standby(t)
	return p
}

// config names these clusters as hosts, in this order.
func (p *pair) config(clusters ...*pgtest.Cluster) Config {
	hosts, ports := "", ""
	for _, c := range clusters {
		hosts, ports = hosts+",127.0.0.1", ports+","+c.Port()
	}
	return Config{
		DSN:      fmt.Sprintf("host=%s port=%s user=smime dbname=%s", hosts[1:], ports[1:], p.name),
		Password: p.primary.Password,
	}
}

func (p *pair) open(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *Store, key string) error {
	t.Helper()
	return s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Keys, []byte(key), []byte("x")) })
}

// insist repeats a write as agents do, until it is acknowledged or the server gives up.
func insist(t *testing.T, s *Store, key string) error {
	t.Helper()
	for {
		err := put(t, s, key)
		if err == nil || errors.Is(err, store.ErrLost) {
			return err
		}
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOverloaded) {
			t.Fatalf("a write gives %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// shows says whether everybody sees a key in a cluster.
func (p *pair) shows(t *testing.T, c *pgtest.Cluster, key string) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.DSN(p.name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var there bool
	if err := conn.QueryRow(t.Context(), "select exists (select from keys where key = $1)", []byte(key)).Scan(&there); err != nil {
		t.Fatal(err)
	}
	return there
}

// TestOldPrimaryRunsOn: the standby takes over while the primary runs on, reachable
// for everybody. Who knows both hosts leaves the old one, at once or where it is
// started only then; nothing acknowledged is lost. Who knows the old one alone gets
// nothing acknowledged there, and what it wanted to write is not shown to anybody.
func TestOldPrimaryRunsOn(t *testing.T) {
	p := newPair(t)
	s := p.open(t, p.config(p.primary, p.standby))
	lone := p.open(t, p.config(p.primary))
	lone.writeTime = 2 * time.Second
	if err := errors.Join(put(t, s, "before"), put(t, lone, "lone before")); err != nil {
		t.Fatal(err)
	}
	p.standby.Promote(t)
	if err := insist(t, s, "after"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"before", "lone before", "after"} {
		if !p.shows(t, p.standby, key) {
			t.Errorf("the new primary does not have %q", key)
		}
	}
	if p.shows(t, p.primary, "after") {
		t.Error("the old primary shows what was acknowledged only after it was left")
	}
	if err := put(t, lone, "lone"); !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOverloaded) {
		t.Errorf("a write that no standby has gives %v", err)
	}
	if p.shows(t, p.primary, "lone") {
		t.Error("the old primary shows what no standby has: the wait was cancelled")
	}
	fresh := p.open(t, p.config(p.primary, p.standby)) // the old one is the first in the list
	if err := put(t, fresh, "fresh"); err != nil || !p.shows(t, p.standby, "fresh") {
		t.Errorf("a server that is started after the takeover writes elsewhere, %v", err)
	}
	var port string
	if err := fresh.reads.QueryRow(t.Context(), "select inet_server_port()::text").Scan(&port); err != nil || port != p.standby.Port() {
		t.Errorf("it reads at port %s, want %s, %v", port, p.standby.Port(), err)
	}
}

// TestLossIsNoticed: a standby takes over that the primary did not wait for, and it
// has less than was acknowledged. The server that was told so does nothing with it
// until it is started anew.
func TestLossIsNoticed(t *testing.T) {
	p := newPair(t)
	p.primary.Exec(t, p.primary.DSN("postgres"), "alter system set synchronous_standby_names = ''")
	p.primary.Exec(t, p.primary.DSN("postgres"), "select pg_reload_conf()")
	var said bytes.Buffer
	config := p.config(p.primary, p.standby)
	config.Log = slog.New(slog.NewTextHandler(&said, nil))
	s := p.open(t, config)
	if err := put(t, s, "first"); err != nil {
		t.Fatal(err)
	}
	// The standby hears no more: what comes now is on one machine only.
	p.standby.Exec(t, p.standby.DSN("postgres"), "alter system set primary_conninfo = ''")
	p.standby.Exec(t, p.standby.DSN("postgres"), "select pg_reload_conf()")
	p.alone(t)
	for _, key := range []string{"second", "third"} {
		if err := put(t, s, key); err != nil {
			t.Fatal(err)
		}
	}
	p.standby.Promote(t)
	// The old primary runs on, waits for nobody, and so acknowledges until it is left.
	err := insist(t, s, "more")
	for ; err == nil; err = insist(t, s, "more") {
		time.Sleep(50 * time.Millisecond)
	}
	if !errors.Is(err, store.ErrLost) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a database that lost acknowledged writes gives %v", err)
	}
	if err := s.View(func(store.Tx) error { return nil }); !errors.Is(err, store.ErrLost) {
		t.Errorf("it is still read: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !bytes.Contains(said.Bytes(), []byte("has lost what it had acknowledged")) || !bytes.Contains(said.Bytes(), []byte("transactions=")) {
		t.Errorf("the log does not say how much is lost:\n%s", said.String())
	}
	if err := put(t, p.open(t, config), "accepted"); err != nil || !p.shows(t, p.standby, "accepted") {
		t.Errorf("a server that was started anew gets %v", err)
	}
}

// alone waits until the primary has no standby any more.
func (p *pair) alone(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.primary.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for followers := 1; followers > 0; time.Sleep(20 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), "select count(*) from pg_stat_replication").Scan(&followers); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFenceJudges: which primaries are gone on with.
func TestFenceJudges(t *testing.T) {
	f := newFence(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		system   string
		timeline uint64
		want     error
	}{
		{"1", 3, nil}, {"1", 3, nil}, {"1", 2, errOld}, {"2", 9, errOther}, {"1", 4, nil}, {"1", 3, errOld}, {"1", 4, nil},
	} {
		if err := f.see(c.system, c.timeline); !errors.Is(err, c.want) {
			t.Errorf("system %s, timeline %d: %v, want %v", c.system, c.timeline, err, c.want)
		}
	}
}
