package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lookTime is the pause between two looks at all hosts.
const lookTime = 5 * time.Second

// look asks each host of several who it is, so that a standby that took over is
// known before the primary that it followed is missed.
func (s *Store) look(ctx context.Context) {
	var wg sync.WaitGroup
	for _, host := range s.hosts {
		wg.Go(func() {
			conn, err := pgx.ConnectConfig(ctx, host.Copy())
			if err != nil {
				return // a standby, one that is away, or one that the fence has logged
			}
			_ = conn.Close(ctx) // nothing was written on it
		})
	}
	wg.Wait()
}

// watch looks again and again, until the store is closed.
func (s *Store) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
			s.look(ctx)
		}
	}
}

// hostsOf takes a configuration apart by hosts; nil where there is only one.
// Fallbacks of one host are its ways with and without TLS.
func hostsOf(config *pgx.ConnConfig) []*pgx.ConnConfig {
	var hosts []*pgx.ConnConfig
	find := map[string]*pgx.ConnConfig{}
	all := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	for _, way := range all {
		where := net.JoinHostPort(way.Host, strconv.Itoa(int(way.Port)))
		if host := find[where]; host != nil {
			host.Fallbacks = append(host.Fallbacks, way)
			continue
		}
		host := config.Copy()
		host.Host, host.Port, host.TLSConfig, host.Fallbacks = way.Host, way.Port, way.TLSConfig, nil
		find[where], hosts = host, append(hosts, host)
	}
	if len(hosts) < 2 {
		return nil
	}
	return hosts
}

// errNoCancel is given to whom wants to cancel what a connection of ours is waiting for.
var errNoCancel = errors.New("what waits for a standby is not cancelled")

// uncancelled keeps the driver from cancelling what it has lost patience with:
// PostgreSQL ends a commit that waits for a synchronous standby when it is
// cancelled, and shows everybody what no standby has (its syncrep.c, SyncRepWaitForLSN).
// Cancelling takes a second connection, so a connection dials once.
func uncancelled(_ context.Context, config *pgx.ConnConfig) error {
	var connected atomic.Bool
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if connected.Load() {
			return nil, errNoCancel
		}
		return dial(ctx, network, address)
	}
	config.AfterConnect = func(context.Context, *pgconn.PgConn) error { connected.Store(true); return nil }
	return nil
}

// keptFor is how long the number of a process's writes is kept after its last; one that lives writes more often.
const keptFor = "400 days"

// newProcess is a name that no other process of a server has.
func newProcess() []byte {
	process := make([]byte, 16)
	_, _ = rand.Read(process) // never fails
	return process
}

// count notes a transaction of this process, as part of it, and gets its number there.
func (s *Store) count(number *int64) statement {
	return statement{
		sql: "insert into fence (process, writes) values ($1, 1) on conflict (process) do update set writes = fence.writes + 1, at = now()" +
			" returning process, writes",
		args: []any{s.process},
		take: func(_, value []byte) { *number = int64(binary.BigEndian.Uint64(value)) }, //nolint:gosec // it counts from 1
	}
}

// tidy removes the numbers of processes that ended long ago.
func (s *Store) tidy(ctx context.Context) error {
	if _, err := s.writes.Exec(ctx, "delete from fence where at < now() - interval '"+keptFor+"'"); err != nil {
		return fmt.Errorf("tidy up: %w", err)
	}
	return nil
}
