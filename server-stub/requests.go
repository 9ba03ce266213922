package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
)

func (a *app) requestsCommand() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use: "requests", Short: "List requests that wait for an administrator", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.ListRequests(ctx, &controlv1.ListRequestsRequest{All: all})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, resp.GetRequests())
				}
				rows := [][]string{{"REFERENCE", "STATE", "SUBMITTED", "MAILBOX", "PROFILE", "USER", "DEVICE", "CODES"}}
				for _, r := range resp.GetRequests() {
					rows = append(rows, []string{
						r.GetReference(), r.GetState(), minute(r.GetSubmitted()), dash(strings.Join(r.GetMailboxes(), " ")),
						r.GetProfile(), r.GetUser(), r.GetDeviceId(), codesOf(r),
					})
				}
				return table(a.out, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are settled, or wait for codes that were mailed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// codesOf says what became of the codes that a request waits for.
func codesOf(r *controlv1.RequestInfo) string {
	var out []string
	for _, c := range r.GetChecks() {
		text := "no code mailed"
		switch {
		case c.GetConfirmed() != nil:
			text = "confirmed " + minute(c.GetConfirmed())
		case c.GetMailed() != nil:
			text = fmt.Sprintf("code %d of %d mailed %s", c.GetMails(), c.GetMaxMails(), minute(c.GetMailed()))
		}
		out = append(out, c.GetMailbox()+": "+text)
	}
	return dash(strings.Join(out, "; "))
}

func (a *app) requestCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "request", Short: "Approve or refuse a request"}
	var reason string
	refuse := a.requestDecide("refuse", "Refuse a request, with a sentence for the employee", false, &reason)
	refuse.Flags().StringVar(&reason, "reason", "", "one sentence that the employee sees")
	_ = refuse.MarkFlagRequired("reason") // fails only for a flag that is not there
	cmd.AddCommand(a.requestDecide("approve", "Approve a request: its certificate is issued", true, &reason), refuse)
	return cmd
}

func (a *app) requestDecide(verb, short string, approve bool, reason *string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " REFERENCE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				_, err := c.DecideRequest(ctx, &controlv1.DecideRequestRequest{Reference: args[0], Approve: approve, Reason: *reason})
				return err
			})
		},
	}
}

func (a *app) revokeCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "revoke SERIAL", Short: "Revoke a certificate", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				_, err := c.Revoke(ctx, &controlv1.RevokeRequest{Serial: args[0], Reason: reason})
				return err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "",
		revocationReasons)
	_ = cmd.MarkFlagRequired("reason") // fails only for a flag that is not there
	return cmd
}
