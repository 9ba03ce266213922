package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"smime-agent/server-stub/store"
)

// maxTries bounds how often a transaction is tried that the database undid.
const maxTries = 5

// channel is where words pass between servers.
const channel = "smime_server"

// Update queues the write for this server's next turn and waits for it.
func (s *Store) Update(ctx context.Context, write func(store.Tx) error) error {
	u := &update{ctx: ctx, write: write, reply: make(chan error, 1)}
	if err := s.usable(); err != nil {
		return err
	}
	select {
	case s.queue <- u:
	default:
		return store.ErrOverloaded
	}
	select {
	case err := <-u.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		select {
		case err := <-u.reply: // it was in the last batch
			return err
		default:
			return store.ErrClosed
		}
	}
}

// run is the only writer of this server.
func (s *Store) run() {
	defer close(s.done)
	for {
		select {
		case u := <-s.queue:
			runtime.Gosched() // whoever is ready to run may bring a write that shares the sync
			s.commit(s.drain(u))
		case <-s.quit:
			for len(s.queue) > 0 {
				s.commit(s.drain(<-s.queue))
			}
			return
		}
	}
}

func (s *Store) drain(first *update) []*update {
	batch := []*update{first}
	for len(batch) < maxBatch {
		select {
		case u := <-s.queue:
			batch = append(batch, u)
		default:
			return batch
		}
	}
	return batch
}

// commit runs a batch as one transaction, again if the database wants it so, and
// answers everyone in it.
func (s *Store) commit(batch []*update) {
	results := make([]error, len(batch))
	err := errAgain
	for try := 0; try < maxTries && errors.Is(err, errAgain); try++ {
		if try > 0 {
			time.Sleep(rand.N(10 * time.Millisecond << try)) //nolint:gosec // spreads servers, hides nothing
		}
		err = s.attempt(batch, results)
	}
	if errors.Is(err, errAgain) {
		err = fmt.Errorf("%w: %w", store.ErrOverloaded, err)
	}
	for i, u := range batch {
		if err != nil { // refusals too: they may rest on what was not committed
			results[i] = fmt.Errorf("commit: %w", err)
		}
		u.reply <- results[i]
	}
}

// attempt sets each write's own error, and gives that of the transaction.
func (s *Store) attempt(batch []*update, results []error) error {
	clear(results)
	if err := s.fence.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.writeTime)
	defer cancel()
	ctx, forget := s.fence.during(ctx)
	defer forget()
	var number int64
	turn := &session{ctx: ctx, pool: s.writes, fence: s.fence, begin: []statement{
		{sql: "begin isolation level read committed"},
		// Held until the end of the transaction. Each statement after it sees all that
		// whoever had it before has committed.
		{sql: "select pg_advisory_xact_lock($1)", args: []any{writeLock}},
		s.count(&number),
	}}
	defer turn.end()
	all := &tx{session: turn, known: values{}, own: values{}}
	for i, u := range batch {
		if results[i] = u.ctx.Err(); results[i] != nil {
			continue // nobody waits for it
		}
		one := &tx{session: turn, known: all.known, own: values{}}
		results[i] = u.write(one)
		if turn.failed != nil {
			return turn.failed
		}
		if results[i] == nil {
			all.absorb(one)
		}
	}
	if !slices.Contains(results, nil) || turn.conn == nil && len(all.own)+len(all.words) == 0 {
		return nil // everybody was refused, or nobody wanted anything
	}
	if turn.conn != nil && number <= s.acknowledged {
		return s.fence.lose(s.acknowledged - number + 1)
	}
	if err := all.flush(); err != nil {
		return err
	}
	if number <= s.acknowledged { // the transaction began with the flush; nobody is told that it is there
		return s.fence.lose(s.acknowledged - number + 1)
	}
	s.acknowledged = number
	return nil
}

// absorb takes over what one write did.
func (t *tx) absorb(one *tx) {
	t.words = append(t.words, one.words...)
	for bucket, records := range one.own {
		for key, value := range records {
			t.known.set(bucket, []byte(key), value)
			t.own.set(bucket, []byte(key), value)
		}
	}
}

// flush sends all writes and the commit in one go. There is one even where nothing
// else was written: whoever found what an earlier transaction left is answered only
// once that has come where the database wants its commits to be.
func (t *tx) flush() error {
	var statements []statement
	for bucket, records := range t.own {
		var gone, keys, contents [][]byte
		for key, value := range records {
			if value == nil {
				gone = append(gone, []byte(key))
				continue
			}
			keys, contents = append(keys, []byte(key)), append(contents, value)
		}
		if gone != nil {
			statements = append(statements, statement{sql: "delete from " + string(bucket) + " where key = any($1)", args: []any{gone}})
		}
		if keys != nil {
			statements = append(statements, statement{
				sql: "insert into " + string(bucket) + " (key, value) select * from unnest($1::bytea[], $2::bytea[])" +
					" on conflict (key) do update set value = excluded.value",
				args: []any{keys, contents},
			})
		}
	}
	for _, word := range t.words {
		statements = append(statements, statement{sql: "select pg_notify($1, $2)", args: []any{channel, word}})
	}
	t.session.ask(append(statements, statement{sql: "commit"})...)
	return t.session.failed
}
