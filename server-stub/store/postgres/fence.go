package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"smime-agent/server-stub/store"
)

// fence keeps a server from a database that is not the one to go on with. A
// standby that takes over begins a new timeline, with a higher number than any
// before (PostgreSQL's documentation, "Timelines"): once a primary of a newer timeline
// was seen, one of an older timeline is refused, though it may run on and take
// writes. What a primary that was never seen has is beyond it.
type fence struct {
	log *slog.Logger

	mu sync.Mutex
	// system is the cluster's identifier, which all its standbys share; empty until one answered.
	system string
	// timeline is the newest that was seen.
	timeline uint64
	// era ends when a newer one is seen.
	era context.Context
	end context.CancelFunc
	// lost says that the database has not what it had acknowledged; nothing is done any more.
	lost error
}

var (
	// errOld: this primary was followed by another.
	errOld = errors.New("another primary has taken over from it")
	// errOther: it is not a copy of the database that we began with.
	errOther = errors.New("it is another database cluster than this server began with; if that is meant, restart the server")
)

func newFence(log *slog.Logger) *fence {
	f := &fence{log: log}
	f.era, f.end = context.WithCancel(context.Background())
	return f
}

// identify asks a server what it is. The system's identifier and the timeline are
// known to everybody there; pg_control_checkpoint() has the timeline only after
// the first checkpoint.
const identify = "select pg_is_in_recovery() or current_setting('transaction_read_only')::bool, (select system_identifier from pg_control_system()), " +
	"case when pg_is_in_recovery() then '0' else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end"

// admit judges a new connection; it is a [pgconn.ValidateConnectFunc].
func (f *fence) admit(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, identify).ReadAll()
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(refused.Code, "42") || strings.HasPrefix(refused.Code, "0A")) {
		// A kin of PostgreSQL's without these functions: there is only what it writes to judge by.
		f.log.Debug("the database does not say its timeline", "error", refused)
		return pgconn.ValidateConnectTargetSessionAttrsReadWrite(ctx, conn)
	}
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 3 {
		return errForm
	}
	row := results[0].Rows[0]
	if string(row[0]) == "t" {
		return pgconn.ErrReadOnlyConnection
	}
	timeline, err := strconv.ParseUint(string(row[2]), 16, 32)
	if err != nil {
		return fmt.Errorf("%w: %w", errForm, err)
	}
	conn.CustomData()[timelineKey] = timeline
	return f.see(string(row[1]), timeline)
}

// timelineKey is where a connection has its primary's.
const timelineKey = "timeline"

// see notes a primary, and refuses one that is not to be gone on with.
func (f *fence) see(system string, timeline uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.system != "" && f.system != system:
		return errOther
	case timeline < f.timeline:
		return fmt.Errorf("%w: its timeline is %d, and %d was seen", errOld, timeline, f.timeline)
	case f.timeline != 0 && timeline > f.timeline:
		f.log.Warn("another database has taken over; the one before is not used any more", "timeline", timeline, "before", f.timeline)
		f.end()
		f.era, f.end = context.WithCancel(context.Background())
	}
	f.system, f.timeline = system, timeline
	return nil
}

// current says whether a connection still leads to the newest primary.
func (f *fence) current(conn *pgconn.PgConn) bool {
	timeline, ok := conn.CustomData()[timelineKey].(uint64)
	f.mu.Lock()
	defer f.mu.Unlock()
	return !ok || timeline == f.timeline
}

// during gives a context that also ends when a newer primary is seen.
func (f *fence) during(ctx context.Context) (context.Context, context.CancelFunc) {
	f.mu.Lock()
	era := f.era
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(era, cancel)
	return ctx, func() { stop(); cancel() }
}

// lose has this server do nothing any more with a database that has less than it
// had acknowledged.
func (f *fence) lose(missing int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = fmt.Errorf("%w: %w (%d transactions of this server's)", store.ErrUnavailable, store.ErrLost, missing)
	f.log.Error("the database has lost what it had acknowledged, or is an older copy; nothing is done with it until this server is restarted",
		"transactions", missing, "timeline", f.timeline)
	return f.lost
}

// usable gives the error after which nothing is done any more.
func (f *fence) usable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}
