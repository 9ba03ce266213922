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
		Example: "  " + self() + " leavers\n  " + self() + " leavers --revoke affiliationChanged --count 3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.ListLeavers(ctx, req)
				if err != nil {
					return err
				}
				return a.toldLeavers(resp, form, req.GetRevokeReason() != "")
			})
		},
	}
	form.flags(cmd)
	cmd.Flags().StringVar(&req.RevokeReason, "revoke", "", "revoke them, for this reason; affiliationChanged is usual")
	cmd.Flags().Uint32Var(&req.Expected, "count", 0, "with --revoke: how many there are, as the list said")
	cmd.MarkFlagsRequiredTogether("revoke", "count")
	return cmd
}

// toldLeavers is an error if some were to be revoked and could not be.
func (a *app) toldLeavers(resp *controlv1.ListLeaversResponse, form format, revoke bool) error {
	entries := make([]*controlv1.LedgerEntry, 0, len(resp.GetLeavers()))
	for _, l := range resp.GetLeavers() {
		entries = append(entries, l.GetEntry())
	}
	own, elsewhere := byCA(entries)
	err := a.printLeavers(resp, form)
	if err == nil && !form.json && !form.csv && len(entries) > 0 {
		line := fmt.Sprintf("To revoke them: %s leavers --revoke affiliationChanged --count %d", self(), len(entries))
		if revoke {
			line = fmt.Sprintf("%d of the %d are revoked.", len(own), len(entries))
		}
		if revoke && len(elsewhere) == 0 {
			line = "All of them are revoked."
		}
		if _, err = fmt.Fprintln(a.out, line); err == nil {
			err = a.tellElsewhere(elsewhere)
		}
	}
	if err == nil && revoke {
		err = notRevoked(elsewhere)
	}
	return err
}

func (a *app) printLeavers(resp *controlv1.ListLeaversResponse, form format) error {
	if form.json {
		return printJSON(a.out, resp.GetLeavers())
	}
	head := []string{"CAUSE", "MAILBOX", "NAME", "DEPARTMENT", "TYPE", "ENDS", "HOST", "ACCOUNT", "SERIAL"}
	if form.csv {
		head = []string{"cause", "mailbox", "name", "department", "type", "not_after", "hostname", "account", "serial", "ca", "authority"}
	}
	rows := [][]string{head}
	for _, l := range resp.GetLeavers() {
		e := l.GetEntry()
		row := []string{
			l.GetCause(), l.GetMailbox(), e.GetName(), dash(e.GetDepartment()), e.GetType(), day(e.GetNotAfter()),
			dash(e.GetHostname()), dash(l.GetAccount()), e.GetSerial(),
		}
		if form.csv {
			row = append(row, e.GetCa(), e.GetAuthority())
		}
		rows = append(rows, row)
	}
	if form.csv {
		return writeCSV(a.out, rows)
	}
	if len(resp.GetLeavers()) == 0 {
		_, err := fmt.Fprintln(a.out, "Nobody's certificate is left over.")
		return err
	}
	return table(a.out, rows)
}
