package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
)

func (a *app) devicesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "devices", Short: "List devices", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				devices, err := allDevices(ctx, c)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, devices)
				}
				return table(a.out, deviceRows(devices))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func allDevices(ctx context.Context, c controlv1.AdminServiceClient) ([]*controlv1.Device, error) {
	var out []*controlv1.Device
	req := &controlv1.ListDevicesRequest{}
	for {
		resp, err := c.ListDevices(ctx, req)
		if err != nil {
			return nil, err
		}
		out = append(out, resp.GetDevices()...)
		if resp.GetNextPageToken() == "" {
			return out, nil
		}
		req.PageToken = resp.GetNextPageToken()
	}
}

func deviceRows(devices []*controlv1.Device) [][]string {
	rows := [][]string{{"DEVICE", "HOST", "SYSTEM", "STATE", "LAST CONTACT", "CREDENTIALS", "PROVED", "PROBLEMS"}}
	for _, d := range devices {
		problems := 0
		for _, c := range d.GetConditions() {
			if c.GetSeverity() != "info" {
				problems++
			}
		}
		rows = append(rows, []string{
			d.GetId(), dash(d.GetFacts().GetHostname()), dash(d.GetFacts().GetOs()), d.GetState(), minute(d.GetLastContact()),
			fmt.Sprint(d.GetCredentials()), fmt.Sprint(d.GetProved()), fmt.Sprint(problems),
		})
	}
	return rows
}

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "One device: show, admit, remove"}
	cmd.AddCommand(a.deviceShow(),
		a.deviceDecide("admit", "Admit a device that waits", true),
		a.deviceDecide("remove", "Remove a device; its certificates stay valid until revoked", false))
	return cmd
}

func (a *app) deviceDecide(verb, short string, admit bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " DEVICE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				_, err := c.DecideDevice(ctx, &controlv1.DecideDeviceRequest{Id: args[0], Admit: admit})
				return err
			})
		},
	}
}

func (a *app) deviceShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show DEVICE", Short: "Show all that is known of a device", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.GetDevice(ctx, &controlv1.GetDeviceRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, []*controlv1.GetDeviceResponse{resp})
				}
				return a.showDevice(resp)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func (a *app) showDevice(r *controlv1.GetDeviceResponse) error {
	d, facts := r.GetDevice(), r.GetDevice().GetFacts()
	head := [][]string{
		{"Device", d.GetId()}, {"Host", dash(facts.GetHostname())}, {"State", d.GetState()},
		{"System", dash(facts.GetOs() + " " + facts.GetOsVersion())}, {"Agent", dash(facts.GetAgentVersion())},
		{"Joined", minute(d.GetJoined())}, {"Last contact", minute(d.GetLastContact())},
		{"Identity ends", day(d.GetIdentityEnds())}, {"Policy", dash(d.GetPolicyRevision())},
	}
	users := [][]string{{"USER", "ACCOUNT", "HERE NOW", "LANGUAGE"}}
	for _, u := range r.GetUsers() {
		users = append(users, []string{u.GetUser(), dash(u.GetAccount()), yesNo(u.GetPresent()), dash(u.GetLocale())})
	}
	credentials := [][]string{{"ENROLLMENT", "MAILBOX", "PROFILE", "STORE", "STATE", "ENDS", "PROVED", "PROBLEM"}}
	for _, c := range r.GetCredentials() {
		credentials = append(credentials, []string{
			c.GetEnrollmentId(), c.GetMailbox(), c.GetProfile(), c.GetStore(), c.GetState(),
			day(c.GetNotAfter()), proofText(c.GetProof()), dash(c.GetProblem().GetCode()),
		})
	}
	conditions := [][]string{{"CONDITION", "SEVERITY", "SINCE", "TEXT"}}
	for _, c := range d.GetConditions() {
		conditions = append(conditions, []string{c.GetCode(), c.GetSeverity(), minute(c.GetSince()), c.GetText()})
	}
	events := [][]string{{"TIME", "EVENT", "OUTCOME", "USER", "MAILBOX"}}
	for _, e := range r.GetEvents() {
		events = append(events, []string{minute(e.GetAt()), e.GetCode(), e.GetOutcome(), dash(e.GetUser()), dash(e.GetMailbox())})
	}
	return a.tables(head, users, credentials, conditions, events)
}

// tables writes those that have rows, with an empty line between.
func (a *app) tables(head [][]string, lists ...[][]string) error {
	err := table(a.out, head)
	for _, rows := range lists {
		if len(rows) < 2 {
			continue
		}
		_, lineErr := fmt.Fprintln(a.out)
		err = errors.Join(err, lineErr, table(a.out, rows))
	}
	return err
}

func proofText(p *controlv1.ProofReport) string {
	switch {
	case p == nil:
		return "-"
	case p.GetOk():
		return day(p.GetAt())
	default:
		return "failed"
	}
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
