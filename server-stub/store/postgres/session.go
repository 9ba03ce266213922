package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"smime-agent/server-stub/store"
)

// statement is one query; take gets its rows.
type statement struct {
	sql  string
	args []any
	take func(key, value []byte)
}

// session is one transaction on one connection, which begins with the first
// question. Questions have no errors of their own, as those of bbolt have none:
// after the first failure nothing is found, and whoever began it asks for failed.
type session struct {
	ctx  context.Context
	pool *pgxpool.Pool
	// fence, where there is one, has the last word on the connection.
	fence *fence
	// patience is how long one answer may take, where that is less than ctx allows:
	// a network that loses everything does not say so.
	patience time.Duration
	begin    []statement
	conn     *pgxpool.Conn
	failed   error
}

// staleTries is how many connections may turn out dead, as all do after a
// restart of the database, before a transaction gives up.
const staleTries = 3

// ask sends statements in one go and waits for all answers.
func (s *session) ask(statements ...statement) {
	if s.failed != nil {
		return
	}
	if s.conn != nil {
		s.failed = s.send(statements)
		return
	}
	begin := time.Now()
	for range staleTries {
		if s.failed = s.start(statements); s.failed == nil || !errors.Is(s.failed, store.ErrUnavailable) {
			return
		}
		s.end()
		if time.Since(begin) > acquireTime { // nobody answers at all
			return
		}
	}
}

// start takes a connection and begins.
func (s *session) start(statements []statement) error {
	ctx, cancel := context.WithTimeout(s.ctx, acquireTime)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		if stat := s.pool.Stat(); ctx.Err() != nil && stat.AcquiredConns() >= stat.MaxConns() {
			return store.ErrOverloaded
		}
		return unavailable(err)
	}
	s.conn = conn
	return s.send(slices.Concat(s.begin, statements))
}

func (s *session) send(statements []statement) error {
	batch := &pgx.Batch{}
	for _, st := range statements {
		batch.Queue(st.sql, st.args...)
	}
	ctx := s.ctx
	if s.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.patience)
		defer cancel()
	}
	results := s.conn.SendBatch(ctx, batch)
	for _, st := range statements {
		if err := receive(results, st); err != nil {
			_ = results.Close() // the first error is the one that tells
			return classify(err)
		}
	}
	if err := results.Close(); err != nil {
		return classify(err)
	}
	if s.fence != nil && !s.fence.current(s.conn.Conn().PgConn()) {
		return unavailable(errOld) // meanwhile: what was written is where nobody will look
	}
	return nil
}

func receive(results pgx.BatchResults, st statement) error {
	if st.take == nil {
		_, err := results.Exec()
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		raw := rows.RawValues() // bytea in binary form is itself; the buffer is used again
		if len(raw) != 2 || rows.FieldDescriptions()[0].Format != pgx.BinaryFormatCode || rows.FieldDescriptions()[1].Format != pgx.BinaryFormatCode {
			return errForm
		}
		both := slices.Concat(raw[0], raw[1])
		st.take(both[:len(raw[0]):len(raw[0])], both[len(raw[0]):])
	}
	return rows.Err()
}

// errForm: an answer is no pair of key and value.
var errForm = errors.New("the database answers in another form than was asked for")

// end gives the connection back. What was not committed is taken back; a
// connection that is not at rest is closed by the pool.
func (s *session) end() {
	if s.conn == nil {
		return
	}
	if s.failed == nil && s.conn.Conn().PgConn().TxStatus() != 'I' {
		_, _ = s.conn.Exec(s.ctx, "rollback") // else the connection is closed
	}
	if conn := s.conn.Conn(); conn.IsClosed() {
		_ = conn.PgConn().Conn().Close() // or the driver waits for what may wait for a standby
	}
	s.conn.Release()
	s.conn = nil
}

// errAgain: the database undid the transaction, and wants it tried again.
var errAgain = errors.New("the transaction has to be tried again")

func unavailable(err error) error { return fmt.Errorf("%w: %w", store.ErrUnavailable, err) }

// classify sorts the database's errors by remedy.
func classify(err error) error {
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok { // the connection, or a time that ran out
		return unavailable(err)
	}
	switch refused.Code {
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return fmt.Errorf("%w: %w", errAgain, err)
	case "55P03": // lock_not_available: it is not our turn for too long
		return fmt.Errorf("%w: %w", store.ErrOverloaded, err)
	}
	switch refused.Code[:2] {
	// Connections, resources, operators (a stop), the system, and a standby that took over.
	case "08", "53", "57", "58", "25":
		return unavailable(err)
	}
	return err
}
