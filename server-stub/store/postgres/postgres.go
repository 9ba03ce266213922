// Package postgres keeps the reference server's records in PostgreSQL, for whoever
// outgrows one machine: several servers work over one database, and none of them
// is the leader. It keeps the promises of bbolt's store.
//
// Writers take turns, over all servers, by one advisory lock that their
// transactions hold. So none ever fails because of another, as serializable
// transactions do all the time where keys grow with time and share a page. What
// is queued in a server when its turn comes is one transaction with one sync.
package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"smime-agent/server-stub/store"
)

const (
	// queueLength bounds the writes that wait in this server.
	queueLength = 2048
	// maxBatch bounds one transaction, and so how long other servers wait for their turn.
	maxBatch = 128
	// maxReads bounds the connections that read; more wait, at most for acquireTime.
	maxReads    = 16
	acquireTime = 5 * time.Second
	// connectTime bounds the way to the database, for each of its addresses.
	connectTime = 5 * time.Second
	// readTime bounds one read transaction and answerTime one answer in it, writeTime
	// one write with its wait for the lock.
	readTime   = time.Minute
	answerTime = 10 * time.Second
	writeTime  = 20 * time.Second
)

// Config is where the database is, and who we are there.
type Config struct {
	// DSN is libpq's connection string or URL, without a password.
	DSN string
	// Password, where there is none in libpq's password file.
	Password string
	// Log gets a line when the database is lost and found again; it may be nil.
	Log *slog.Logger
}

// Store is a [store.Shared] in a database.
type Store struct {
	reads, writes *pgxpool.Pool
	config        *pgx.ConnConfig
	// hosts are the ways to each, where there are several.
	hosts []*pgx.ConnConfig
	fence *fence
	log   *slog.Logger

	// process names this one in the database; acknowledged is how many writes of it the
	// database had when it last acknowledged one. Only the writer uses it.
	process      []byte
	acknowledged int64
	// writeTime is the constant, but in tests.
	writeTime time.Duration

	queue chan *update
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once
	// looking is done when nobody looks at the hosts any more.
	looking sync.WaitGroup
}

type update struct {
	ctx   context.Context
	write func(store.Tx) error
	reply chan error
}

// Open connects, brings the schema up to date, and refuses a database that would
// lose what it has acknowledged.
func Open(ctx context.Context, c Config) (*Store, error) {
	config, err := parse(c)
	if err != nil {
		return nil, err
	}
	s := &Store{
		config: config.ConnConfig, log: c.Log, process: newProcess(), writeTime: writeTime,
		queue: make(chan *update, queueLength), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.fence = newFence(s.log)
	admitting(config, s.fence)
	s.hosts = hostsOf(config.ConnConfig)
	s.look(ctx)
	if s.reads, err = pool(ctx, config, maxReads); err != nil {
		return nil, err
	}
	config.AfterConnect, config.BeforeConnect = durable, uncancelled
	if s.writes, err = pool(ctx, config, 1); err != nil {
		s.reads.Close()
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		s.reads.Close()
		s.writes.Close()
		return nil, err
	}
	go s.run()
	if s.hosts != nil {
		s.looking.Go(s.watch)
	}
	return s, nil
}

// admitting has connections judged when they are made and each time they are taken.
func admitting(config *pgxpool.Config, f *fence) {
	own := config.ConnConfig.ValidateConnect
	config.ConnConfig.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if own != nil {
			if err := own(ctx, conn); err != nil {
				return err
			}
		}
		return f.admit(ctx, conn)
	}
	config.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) { return f.current(conn.PgConn()), nil }
}

func pool(ctx context.Context, config *pgxpool.Config, most int32) (*pgxpool.Pool, error) {
	own := config.Copy()
	own.MaxConns = most
	return pgxpool.NewWithConfig(ctx, own)
}

// durable has a commit wait for the disk, and for a synchronous standby if there
// is one, whatever the database's or the role's settings say.
func durable(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') in ('off', 'local')")
	return err
}

// ready says in one sentence why the database cannot be used, if it cannot.
func (s *Store) ready(ctx context.Context) error {
	where := fmt.Sprintf("database %q of user %q at %s", s.config.Database, s.config.User, s.config.Host)
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	var fsync, full string
	err := s.writes.QueryRow(ctx, "select current_setting('fsync'), current_setting('full_page_writes')").Scan(&fsync, &full)
	if err != nil {
		return fmt.Errorf("open %s: %w", where, explain(err))
	}
	if fsync != "on" || full != "on" {
		return fmt.Errorf("open %s: fsync or full_page_writes is off there, so that a power loss would take back "+
			"what was acknowledged; turn both on", where)
	}
	if err := migrate(ctx, s.writes); err != nil {
		return fmt.Errorf("open %s: %w", where, err)
	}
	return s.tidy(ctx)
}

// explain adds what helps to the commonest errors.
func explain(err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch refused.Code {
		case "28P01", "28000":
			return fmt.Errorf("it does not let us in (%s); check user, password file and pg_hba.conf", refused.Message)
		case "3D000":
			return fmt.Errorf("%s; create it with createdb", refused.Message)
		}
		return err
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w; check sslrootcert, and that host is the name in the database's certificate", err)
	}
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// Snapshot gives [store.ErrNoSnapshot]: pg_dump and the database's own backup are for that.
func (s *Store) Snapshot(io.Writer) error { return store.ErrNoSnapshot }

// Close commits what is queued and closes the connections.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.quit) })
	<-s.done
	s.looking.Wait()
	s.reads.Close()
	s.writes.Close()
	return nil
}

func (s *Store) closed() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

func (s *Store) usable() error {
	if s.closed() {
		return store.ErrClosed
	}
	return s.fence.usable()
}

// View reads one consistent state.
func (s *Store) View(read func(store.Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	t := newTx(&session{ctx: ctx, pool: s.reads, fence: s.fence, patience: answerTime, begin: []statement{{sql: "begin isolation level repeatable read read only"}}})
	defer t.session.end()
	err := read(t)
	if failed := t.session.failed; failed != nil {
		return fmt.Errorf("read: %w", failed)
	}
	return err
}
