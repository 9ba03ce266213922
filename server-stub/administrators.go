package main

import (
	"context"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/site"
)

func (a *app) adminCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "admin", Short: "Administrators' certificates"}
	cmd.AddCommand(&cobra.Command{
		Use: "create NAME FILE", Short: "Make another administrator's certificate, on the server itself", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return site.CreateAdmin(a.dir, args[0], args[1], a.now())
		},
	})
	cmd.AddCommand(a.adminList(), a.adminRevoke())
	return cmd
}

func (a *app) adminList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List administrators' certificates that were used", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.ListAdministrators(ctx, &controlv1.ListAdministratorsRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, resp.GetAdministrators())
				}
				rows := [][]string{{"NAME", "STATE", "FIRST USED", "ENDS", "SERIAL", "REVOKED", "BY", "REASON"}}
				for _, one := range resp.GetAdministrators() {
					rows = append(rows, []string{
						one.GetName(), a.adminState(one), minute(one.GetSeen()), minute(one.GetEnds()), dash(one.GetSerial()),
						minute(one.GetRevoked()), dash(one.GetRevokedBy()), dash(one.GetReason()),
					})
				}
				return table(a.out, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func (a *app) adminState(one *controlv1.Administrator) string {
	switch {
	case one.GetRevoked() != nil && one.GetSerial() == "":
		return "all revoked"
	case one.GetRevoked() != nil:
		return "revoked"
	case a.now().After(one.GetEnds().AsTime()):
		return "ended"
	default:
		return "in force"
	}
}

func (a *app) adminRevoke() *cobra.Command {
	req := &controlv1.RevokeAdministratorRequest{}
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Take back an administrator's certificates at once", Args: cobra.ExactArgs(1),
		Long: "Takes back all certificates that were made for the name until now, used or not, or one by its serial number. One that\n" +
			"\"admin create\" makes for the name afterwards is taken.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				_, err := c.RevokeAdministrator(ctx, req)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.Serial, "serial", "", "only this one, which \"admin list\" shows (default: all of the name)")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "one sentence, for the record")
	_ = cmd.MarkFlagRequired("reason") // fails only for a flag that is not there
	return cmd
}
