package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"smime-agent/server-stub/store"
)

var (
	// ErrNotEmpty: the database has records already.
	ErrNotEmpty = errors.New("the database has records already; name an empty one")
	errDiffers  = errors.New("what the database has is not what was copied")
)

// fillTime bounds a copy.
const fillTime = 2 * time.Hour

// Fill copies all records of another store into an empty database, in one
// transaction: after an error it is as empty as before. What it has then is read
// back and compared. Errors: [ErrNotEmpty], and those of both stores.
func (s *Store) Fill(ctx context.Context, from store.Store) (store.Tally, error) {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	var tally store.Tally
	err := from.View(func(source store.Tx) error {
		conn, err := s.writes.Acquire(ctx)
		if err != nil {
			return unavailable(err)
		}
		defer conn.Release()
		return pgx.BeginFunc(ctx, conn, func(t pgx.Tx) error {
			tally, err = fill(ctx, t, &session{ctx: ctx, conn: conn}, source)
			return err
		})
	})
	return tally, err
}

func fill(ctx context.Context, t pgx.Tx, turn *session, source store.Tx) (store.Tally, error) {
	var none store.Tally
	// No statement here is one that hangs: it has as much to do as there are records.
	for _, sql := range []string{
		"set local statement_timeout = 0", "set local idle_in_transaction_session_timeout = 0",
		fmt.Sprintf("select pg_advisory_xact_lock(%d)", writeLock),
	} {
		if _, err := t.Exec(ctx, sql); err != nil {
			return none, err
		}
	}
	if have := store.TallyOf(newTx(turn)); turn.failed != nil || have.Records > 0 {
		return none, errors.Join(turn.failed, ErrNotEmpty)
	}
	for _, bucket := range store.Buckets() {
		if err := copyBucket(ctx, t, bucket, source); err != nil {
			return none, fmt.Errorf("copy %s: %w", bucket, err)
		}
	}
	want, have := store.TallyOf(source), store.TallyOf(newTx(turn))
	if turn.failed != nil {
		return none, turn.failed
	}
	if want != have {
		return none, fmt.Errorf("%w: %d records for %d", errDiffers, have.Records, want.Records)
	}
	return have, nil
}

// copyBucket streams, so that memory does not grow with the records.
func copyBucket(ctx context.Context, t pgx.Tx, bucket store.Bucket, source store.Tx) error {
	rows := make(chan [2][]byte, maxPage)
	stopped := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(rows)
		source.Range(bucket, nil, nil, func(key, value []byte) bool {
			select {
			case rows <- [2][]byte{key, value}:
				return true
			case <-stopped:
				return false
			}
		})
	}()
	_, err := t.CopyFrom(ctx, pgx.Identifier{string(bucket)}, []string{"key", "value"}, pgx.CopyFromFunc(func() ([]any, error) {
		row, ok := <-rows
		if !ok {
			return nil, nil
		}
		return []any{row[0], row[1]}, nil
	}))
	close(stopped)
	<-read
	return err
}
