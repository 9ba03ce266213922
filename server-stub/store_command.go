package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"smime-agent/server-stub/site"
)

func (a *app) storeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "store", Short: "Where the records are kept"}
	cmd.AddCommand(&cobra.Command{
		Use: "copy", Short: "Copy records.db into the PostgreSQL database of server.yaml; the server must be stopped", Args: cobra.NoArgs,
		Long: "Copies all records into the database that store.postgres in server.yaml names, in one transaction, reads them back and\n" +
			"compares. The database must be empty. The file is then renamed, and stays as it was.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			tally, aside, err := site.CopyRecords(cmd.Context(), a.dir, a.now())
			if err != nil {
				return cure(err, "The records are where they were. Stop the server, set store.postgres in server.yaml to an empty database, and copy again.")
			}
			_, err = fmt.Fprintf(a.out, "%d records, %d bytes, SHA-256 %x on both sides.\nThe file is now %s.\n",
				tally.Records, tally.Bytes, tally.Digest, aside)
			return err
		},
	})
	return cmd
}
