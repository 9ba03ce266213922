package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/sheet"
)

// maxAnswer bounds what one answer to an administrator may hold, in octets.
const maxAnswer = 64 << 20

func (a *app) coverageCommand() *cobra.Command {
	var form format
	var people bool
	var silent, ending string
	req := &controlv1.GetCoverageRequest{}
	cmd := &cobra.Command{
		Use: "coverage", Short: "Who should have a certificate, and who has one that is proved to work", Args: cobra.NoArgs,
		Example: "  " + self() + " coverage\n  " + self() + " coverage --people --all --csv > audit.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			silentFor, err := policy.ParseDuration(silent)
			endingIn, endingErr := policy.ParseDuration(ending)
			if err != nil || endingErr != nil || silentFor <= 0 || endingIn <= 0 {
				return cure(fmt.Errorf("a time of %q and %q is none", silent, ending), "Write times such as 7d and 60d.")
			}
			req.SilentFor, req.EndingWithin = durationpb.New(silentFor), durationpb.New(endingIn)
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.GetCoverage(ctx, req, grpc.MaxCallRecvMsgSize(maxAnswer))
				if err != nil {
					return err
				}
				return a.printCoverage(resp, form, people)
			})
		},
	}
	form.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&people, "people", false, "a line for each certificate that somebody is to have")
	flags.BoolVar(&req.All, "all", false, "with --people or --json: also those that are proved")
	flags.StringVar(&silent, "silent", "7d", "when a machine counts as silent")
	flags.StringVar(&ending, "ending", "60d", "what counts as ending soon")
	return cmd
}

func (a *app) printCoverage(c *controlv1.GetCoverageResponse, form format, people bool) error {
	rows := sheet.Departments(c)
	if people {
		rows = sheet.Wishes(c)
	}
	switch {
	case form.json:
		return printJSON(a.out, []*controlv1.GetCoverageResponse{c})
	case form.csv:
		return sheet.Write(a.out, rows)
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "\n%d of %d machines are silent.\n", c.GetSilentCount(), c.GetDevices())
	if err != nil || len(c.GetSilent()) == 0 {
		return err
	}
	return table(a.out, deviceRows(c.GetSilent()))
}
