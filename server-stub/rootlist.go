package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"smime-agent/server-stub/site"
)

func (a *app) rootListCommand() *cobra.Command {
	s := site.RootSigning{}
	cmd := &cobra.Command{
		Use: "root-list", Short: "Sign the root's revocation list anew, with the root's key", Args: cobra.NoArgs,
		Long: "Signs ca/root.crl anew. It needs the root's key: do it where that lies, and copy ca/root.crl to the server, which\n" +
			"hands it out at once. Do it in time before the list ends, or to take an issuing CA back.",
		Example: "  " + self() + " root-list --dir pilot --root-key /media/safe/root.key",
		RunE: func(*cobra.Command, []string) error {
			s.Dir, s.Now = a.dir, a.now()
			ends, err := s.Sign()
			if err != nil {
				return cure(err, "Name the root's key with --root-key. The list is as it was.")
			}
			_, err = fmt.Fprintf(a.out, "The root's revocation list holds until %s.\n", ends.UTC().Format(time.DateOnly))
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.KeyFile, "root-key", "", "the root's key (default: ca/root.key of the data directory)")
	flags.StringVar(&s.Revoke, "revoke-ca", "", "PEM file of an issuing CA to take back")
	flags.StringVar(&s.Reason, "reason", "cACompromise", "why: cACompromise, affiliationChanged, superseded or cessationOfOperation")
	return cmd
}
