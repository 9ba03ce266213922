package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// quietTime is how long nothing may be heard before the connection is tried.
	quietTime = 15 * time.Second
	// returnTime is the pause between two tries to come back.
	returnTime = time.Second
)

// Listen gives what servers tell, and comes back by itself whenever the database does.
func (s *Store) Listen(ctx context.Context, heard func(word string), missed func()) {
	lost := false
	for ctx.Err() == nil {
		err := s.hear(ctx, heard, func() {
			if lost {
				s.log.Info("the database answers again")
				lost = false
			}
			missed()
		})
		if ctx.Err() != nil {
			return
		}
		if !lost && !errors.Is(err, errMoved) {
			s.log.Error("the database does not answer; agents are told to come back", "error", err)
			lost = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(returnTime):
		}
	}
}

// errMoved: a newer primary was seen, and words are said there.
var errMoved = errors.New("a newer primary was seen")

// hear listens on one connection until it breaks.
func (s *Store) hear(ctx context.Context, heard func(word string), begun func()) error {
	conn, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return err
	}
	ctx, forget := s.fence.during(ctx) // words are said where the newest primary is
	defer forget()
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ending) // nothing was written on it
	}()
	if !s.fence.current(conn.PgConn()) {
		return errMoved
	}
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	begun()
	for {
		word, err := next(ctx, conn)
		if err != nil && !s.fence.current(conn.PgConn()) {
			return errMoved
		}
		if err != nil {
			return err
		}
		if word != nil {
			heard(word.Payload)
		}
	}
}

// next gives nil where nothing was said for a while and the connection is good.
func next(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	quiet, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	word, err := conn.WaitForNotification(quiet)
	if err == nil {
		return word, nil
	}
	if quiet.Err() == nil || ctx.Err() != nil || conn.IsClosed() {
		return nil, err
	}
	trying, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	return nil, conn.Ping(trying)
}
