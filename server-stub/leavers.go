package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
)

func (a *app) leaversCommand() *cobra.Command {
	var form format
	req := &controlv1.ListLeaversRequest{}
	cmd := &cobra.Command{
		Use: "leavers", Short: "Certificates in force whose mailbox is gone from the people file, or somebody else's now",
		Args:    cobra.NoArgs,
		Example: "  server-stub leavers\n  server-stub leavers --revoke affiliationChanged --count 3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.ListLeavers(ctx, req)
				if err != nil {
					return err
				}
				return a.printLeavers(resp, form)
			})
		},
	}
	form.flags(cmd)
	cmd.Flags().StringVar(&req.RevokeReason, "revoke", "", "revoke them, for this reason; affiliationChanged is usual")
	cmd.Flags().Uint32Var(&req.Expected, "count", 0, "with --revoke: how many there are, as the list said")
	cmd.MarkFlagsRequiredTogether("revoke", "count")
	return cmd
}

func (a *app) printLeavers(resp *controlv1.ListLeaversResponse, form format) error {
	if form.json {
		return printJSON(a.out, resp.GetLeavers())
	}
	head := []string{"CAUSE", "MAILBOX", "NAME", "DEPARTMENT", "TYPE", "ENDS", "HOST", "ACCOUNT", "SERIAL"}
	if form.csv {
		head = []string{"cause", "mailbox", "name", "department", "type", "not_after", "hostname", "account", "serial"}
	}
	rows := [][]string{head}
	for _, l := range resp.GetLeavers() {
		e := l.GetEntry()
		rows = append(rows, []string{
			l.GetCause(), l.GetMailbox(), e.GetName(), dash(e.GetDepartment()), e.GetType(), day(e.GetNotAfter()),
			dash(e.GetHostname()), dash(l.GetAccount()), e.GetSerial(),
		})
	}
	if form.csv {
		return writeCSV(a.out, rows)
	}
	if len(resp.GetLeavers()) == 0 {
		_, err := fmt.Fprintln(a.out, "Nobody's certificate is left over.")
		return err
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	line := fmt.Sprintf("To revoke them: server-stub leavers --revoke affiliationChanged --count %d", len(resp.GetLeavers()))
	if resp.GetRevoked() {
		line = "All of them are revoked."
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}
