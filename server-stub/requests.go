package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/site"
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
				rows := [][]string{{"REFERENCE", "STATE", "SUBMITTED", "MAILBOX", "PROFILE", "USER", "DEVICE"}}
				for _, r := range resp.GetRequests() {
					rows = append(rows, []string{
						r.GetReference(), r.GetState(), minute(r.GetSubmitted()), dash(strings.Join(r.GetMailboxes(), " ")),
						r.GetProfile(), r.GetUser(), r.GetDeviceId(),
					})
				}
				return table(a.out, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are settled")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
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
		"keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn or unspecified")
	_ = cmd.MarkFlagRequired("reason") // fails only for a flag that is not there
	return cmd
}

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check people and rules, or put them in force"}
	cmd.AddCommand(
		a.policyApply("check", "Say what is wrong in the files, and what would change", true),
		a.policyApply("apply", "Put the files in force; what is wrong changes nothing", false))
	return cmd
}

func (a *app) policyApply(verb, short string, dryRun bool) *cobra.Command {
	var rules, people string
	cmd := &cobra.Command{
		Use: verb, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &controlv1.ApplyPolicyRequest{DryRun: dryRun}
			var err error
			if req.PolicyYaml, err = os.ReadFile(a.file(rules, site.PolicyFile)); err != nil {
				return cure(err, "Name the files with --rules and --people.")
			}
			if req.PeopleCsv, err = os.ReadFile(a.file(people, site.PeopleFile)); err != nil {
				return cure(err, "Name the files with --rules and --people.")
			}
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.ApplyPolicy(ctx, req)
				if err != nil {
					return err
				}
				return a.policyResult(resp, dryRun)
			})
		},
	}
	cmd.Flags().StringVar(&rules, "rules", "", "rules file (default: policy.yaml of the data directory)")
	cmd.Flags().StringVar(&people, "people", "", "people file (default: people.csv of the data directory)")
	return cmd
}

func (a *app) policyResult(resp *controlv1.ApplyPolicyResponse, dryRun bool) error {
	verb := "In force"
	if dryRun {
		verb = "Good"
	}
	lines := append([]string{fmt.Sprintf("%s: %d people, revision %s.", verb, resp.GetPeople(), resp.GetRevision())}, resp.GetChanges()...)
	if len(resp.GetChanges()) == 0 {
		lines = append(lines, "nothing changes")
	}
	_, err := fmt.Fprintln(a.out, strings.Join(lines, "\n  "))
	return err
}
