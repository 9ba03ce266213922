package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
)

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
		{"Joined", minute(d.GetJoined())}, {"Last contact", minute(d.GetLastContact())}, {"Next contact", minute(d.GetNextContact())},
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
