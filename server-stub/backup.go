package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/site"
	"smime-agent/server-stub/store"
)

const backupMode = 0o600

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Copy the records to a new file while the server goes on", Args: cobra.ExactArgs(1),
		Long: "Copies records.db as of one moment, checks the copy, and puts it at FILE. Keys, certificates and server.yaml are not\n" +
			"in it: they do not change by themselves, so copy the data directory's other files once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdminFor(cmd.Context(), 10*callTime, func(ctx context.Context, c controlv1.AdminServiceClient) error {
				n, err := backup(ctx, c, args[0])
				if err != nil {
					return cure(err, "There is no backup; make another.")
				}
				_, err = fmt.Fprintf(a.out, "%d bytes, checked.\n", n)
				return err
			})
		},
	}
}

// backup never leaves half a copy under the name of a whole one.
func backup(ctx context.Context, c controlv1.AdminServiceClient, path string) (int64, error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, fmt.Errorf("%s exists", path)
	}
	// A name of its own, so that one that was killed does not keep the next from being made.
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return 0, err
	}
	part := file.Name()
	n, err := receive(ctx, c, file)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = store.CheckBolt(part)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(part))
	}
	return n, os.Rename(part, path)
}

func receive(ctx context.Context, c controlv1.AdminServiceClient, to io.Writer) (n int64, err error) {
	stream, err := c.Backup(ctx, &controlv1.BackupRequest{})
	if err != nil {
		return 0, err
	}
	sum := sha256.New()
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, errors.New("the copy ended before its end")
		}
		if err != nil {
			return n, err
		}
		sum.Write(resp.GetPiece())
		if _, err := to.Write(resp.GetPiece()); err != nil {
			return n, err
		}
		n += int64(len(resp.GetPiece()))
		if resp.GetSha256() == nil {
			continue
		}
		if !bytes.Equal(sum.Sum(nil), resp.GetSha256()) {
			return n, errors.New("the copy was damaged on its way")
		}
		return n, nil
	}
}

func (a *app) restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in the place of the records; the server must be stopped", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			aside, err := a.restore(args[0])
			if err != nil {
				return cure(err, "Stop the server, and name a file that \""+self()+" backup\" made. The records are as they were.")
			}
			_, err = fmt.Fprintf(a.out, "Restored. The records before are in %s.\n", aside)
			return err
		},
	}
}

// restore checks the copy, and keeps the records that it replaces.
func (a *app) restore(from string) (aside string, err error) {
	config, err := site.ReadConfig(a.dir)
	if err != nil {
		return "", err
	}
	if config.Store.Postgres != "" {
		return "", fmt.Errorf("%w: put a backup back with pg_restore, into an empty database", store.ErrNoSnapshot)
	}
	if err := store.CheckBolt(from); err != nil {
		return "", err
	}
	records := filepath.Join(a.dir, site.RecordsFile)
	aside = records + a.now().UTC().Format(".before-20060102T150405Z")
	// Opening shows that no server has it open, and a file that is there.
	if _, err := os.Stat(records); err != nil {
		return "", err
	}
	open, err := store.OpenBolt(records)
	if err != nil {
		return "", err
	}
	if err := open.Close(); err != nil {
		return "", err
	}
	next := records + ".new"
	if err := copyFile(from, next); err != nil {
		return "", err
	}
	return aside, replace(records, next, aside)
}

// replace puts next where the records are, and these aside. At no moment are there
// none: a server that starts then would begin with new ones.
func replace(records, next, aside string) error {
	switch err := os.Link(records, aside); {
	case errors.Is(err, fs.ErrExist):
		return err
	case err != nil: // a file system without links
		if err := copyFile(records, aside); err != nil {
			return err
		}
	}
	return os.Rename(next, records)
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, backupMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
