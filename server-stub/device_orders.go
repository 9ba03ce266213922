package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
)

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "One device: show, ask, admit, remove"}
	cmd.AddCommand(a.deviceShow(), a.deviceAsk(), a.deviceAdmit(), a.deviceRemove())
	return cmd
}

func (a *app) deviceAdmit() *cobra.Command {
	return &cobra.Command{
		Use: "admit DEVICE", Short: "Admit a device that waits, or was removed", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				_, err := c.DecideDevice(ctx, &controlv1.DecideDeviceRequest{Id: args[0], Admit: true})
				return err
			})
		},
	}
}

func (a *app) deviceRemove() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "remove DEVICE", Short: "Remove a device; says which of its certificates stay valid", Args: cobra.ExactArgs(1),
		Example: "  " + self() + " device remove 0190… --revoke keyCompromise",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.DecideDevice(ctx, &controlv1.DecideDeviceRequest{Id: args[0], RevokeReason: reason})
				if err != nil || len(resp.GetCertificates()) == 0 {
					return err
				}
				return a.toldRemoved(args[0], resp.GetCertificates(), reason != "")
			})
		},
	}
	cmd.Flags().StringVar(&reason, "revoke", "", "revoke its certificates too, for this reason: "+revocationReasons)
	return cmd
}

// toldRemoved says what became of a removed device's certificates; an error if
// some were to be revoked and could not be.
func (a *app) toldRemoved(device string, certificates []*controlv1.LedgerEntry, revoke bool) error {
	own, elsewhere := byCA(certificates)
	head := "Revoked:"
	if !revoke {
		own = certificates
		head = fmt.Sprintf("These certificates stay valid. To revoke them too: %s device remove %s --revoke REASON", self(), device)
	}
	if len(own) > 0 {
		if _, err := fmt.Fprintln(a.out, head); err != nil {
			return err
		}
		if err := table(a.out, ledgerRows(own)); err != nil {
			return err
		}
	}
	if err := a.tellElsewhere(elsewhere); err != nil || !revoke {
		return err
	}
	return notRevoked(elsewhere)
}

// revocationReasons are those that the server takes.
const revocationReasons = "keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn or unspecified"

func (a *app) deviceAsk() *cobra.Command {
	var wait string
	cmd := &cobra.Command{
		Use: "ask DEVICE", Short: "Have a device report now, or at its next call", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := policy.ParseDuration(wait)
			if err != nil || d < 0 || d > time.Minute {
				return cure(fmt.Errorf("the wait %q is none", wait), "Write a time such as 20s, at most 60s.")
			}
			return a.asAdminFor(cmd.Context(), d+callTime, func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.AskDevice(ctx, &controlv1.AskDeviceRequest{DeviceId: args[0], Wait: durationpb.New(d)})
				if err != nil {
					return err
				}
				line := "It reported just now."
				switch {
				case resp.GetReported():
				case resp.GetExpected() != nil:
					line = fmt.Sprintf("It holds no call now; its next one is expected at %s UTC.", minute(resp.GetExpected()))
				default:
					line = "It has not called since the server was started; nobody can say when it will."
				}
				if _, err := fmt.Fprintf(a.out, "%s\n\n", line); err != nil {
					return err
				}
				return a.showDevice(resp.GetDevice())
			})
		},
	}
	cmd.Flags().StringVar(&wait, "wait", "20s", "how long to wait for the report, at most 60s")
	return cmd
}

func (a *app) renewCommand() *cobra.Command {
	return &cobra.Command{
		Use: "renew DEVICE ENROLLMENT", Short: "Tell a device to get a new certificate now", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.instruct(cmd, args[0], &controlv1.Order{
				What: &controlv1.Order_Renew{Renew: &controlv1.RenewOrder{EnrollmentId: args[1]}},
			})
		},
	}
}

func (a *app) proveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "prove DEVICE", Short: "Tell a device to prove all its keys now", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.instruct(cmd, args[0], &controlv1.Order{What: &controlv1.Order_Prove{Prove: &controlv1.ProveOrder{}}})
		},
	}
}

func (a *app) instruct(cmd *cobra.Command, device string, order *controlv1.Order) error {
	return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
		resp, err := c.Instruct(ctx, &controlv1.InstructRequest{DeviceId: device, Order: order})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, resp.GetOrderId())
		return err
	})
}
