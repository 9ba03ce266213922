package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Join tokens: create, list, revoke"}
	cmd.AddCommand(a.tokenCreate(), a.tokenList(), a.tokenRevoke())
	return cmd
}

func (a *app) tokenCreate() *cobra.Command {
	req := &controlv1.CreateTokenRequest{}
	var life string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a join token; its text is shown this once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := policy.ParseDuration(life)
			if err != nil || d < 0 {
				return cure(fmt.Errorf("the life %q is none", life), "Write a time such as 36h or 7d.")
			}
			req.Life = durationpb.New(d)
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.CreateToken(ctx, req)
				if err != nil {
					return err
				}
				info := resp.GetInfo()
				_, err = fmt.Fprintf(a.out, "%s\n", resp.GetToken())
				if err == nil {
					_, err = fmt.Fprintf(a.err, "Token %s: %d use(s), until %s UTC. It is not shown again.\n",
						info.GetId(), info.GetMaxUses(), minute(info.GetExpires()))
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.Label, "label", "", "what it is for")
	cmd.Flags().Uint32Var(&req.MaxUses, "uses", 1, "how many machines may join with it")
	cmd.Flags().StringVar(&life, "life", "24h", "how long it may be used, e.g. 36h or 7d")
	cmd.Flags().BoolVar(&req.NeedsApproval, "needs-approval", false, "machines wait for \"device admit\"")
	return cmd
}

func (a *app) tokenList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List tokens, without their texts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.ListTokens(ctx, &controlv1.ListTokensRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, resp.GetTokens())
				}
				rows := [][]string{{"TOKEN", "STATE", "USES", "EXPIRES", "APPROVAL", "LABEL"}}
				for _, t := range resp.GetTokens() {
					rows = append(rows, []string{
						t.GetId(), a.tokenState(t), fmt.Sprintf("%d of %d", t.GetUses(), t.GetMaxUses()),
						minute(t.GetExpires()), yesNo(t.GetNeedsApproval()), dash(t.GetLabel()),
					})
				}
				return table(a.out, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func (a *app) tokenState(t *controlv1.Token) string {
	switch {
	case t.GetRevoked():
		return "revoked"
	case a.now().After(t.GetExpires().AsTime()):
		return "expired"
	case t.GetUses() >= t.GetMaxUses():
		return "used up"
	default:
		return "usable"
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN-ID", Short: "End a token at once; machines that joined with it stay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				_, err := c.RevokeToken(ctx, &controlv1.RevokeTokenRequest{Id: args[0]})
				return err
			})
		},
	}
}
