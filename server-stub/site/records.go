package site

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"smime-agent/server-stub/store"
	"smime-agent/server-stub/store/postgres"
)

// Records is where a server keeps its records: in records.db, unless a database is named.
type Records struct {
	// Postgres is where the database is, as libpq has it, without the password.
	Postgres string `yaml:"postgres"`
	// PasswordFile is relative to the data directory, and nobody else may read it.
	PasswordFile string `yaml:"password_file"`
}

// OpenRecords opens the records of a data directory.
func OpenRecords(ctx context.Context, dir string, config Config, log *slog.Logger) (store.Store, error) {
	// Never a nil pointer as a store: who asks whether there is one would think so.
	if config.Store.Postgres == "" {
		b, err := store.OpenBolt(filepath.Join(dir, RecordsFile))
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	p, err := openPostgres(ctx, dir, config, log)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func openPostgres(ctx context.Context, dir string, config Config, log *slog.Logger) (*postgres.Store, error) {
	c := postgres.Config{DSN: config.Store.Postgres, Log: log}
	if config.Store.PasswordFile != "" {
		var err error
		if c.Password, err = readSecret(dir, "store.password_file", config.Store.PasswordFile); err != nil {
			return nil, err
		}
	}
	s, err := postgres.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return s, nil
}

// errNoDatabase: there is nothing to copy to.
var errNoDatabase = errors.New("store.postgres in server.yaml names no database")

// CopyRecords copies records.db into the database of server.yaml, which must be
// empty, compares the two, and renames the file so that no server starts from it
// by mistake. The file is open all the time, so no server writes to it.
func CopyRecords(ctx context.Context, dir string, now time.Time) (tally store.Tally, aside string, err error) {
	config, err := ReadConfig(dir)
	if err != nil {
		return tally, "", err
	}
	if config.Store.Postgres == "" {
		return tally, "", errNoDatabase
	}
	path := filepath.Join(dir, RecordsFile)
	if _, err := os.Stat(path); err != nil {
		return tally, "", err
	}
	from, err := store.OpenBolt(path)
	if err != nil {
		return tally, "", err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := openPostgres(ctx, dir, config, nil)
	if err != nil {
		return tally, "", err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if tally, err = to.Fill(ctx, from); err != nil {
		return tally, "", err
	}
	aside = path + now.UTC().Format(".copied-20060102T150405Z")
	if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
		return tally, "", fmt.Errorf("%s is in the way", aside)
	}
	return tally, aside, os.Rename(path, aside)
}
