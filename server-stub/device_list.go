package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/sheet"
)

func (a *app) devicesCommand() *cobra.Command {
	var form format
	var silent, order string
	var reverse bool
	req := &controlv1.ListDevicesRequest{}
	cmd := &cobra.Command{
		Use: "devices", Short: "List devices", Args: cobra.NoArgs,
		Example: "  " + self() + " devices --silent 7d --sort contact\n  " + self() + " devices --condition any\n  " + self() + " devices --match alice --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			less, ok := deviceOrders()[order]
			if !ok {
				return cure(fmt.Errorf("there is no order %q", order), "Use one of: joined, contact, host, problems, unproved, version.")
			}
			d, err := policy.ParseDuration(silent)
			if err != nil || d < 0 {
				return cure(fmt.Errorf("the time %q is none", silent), "Write a time such as 7d or 36h.")
			}
			if d > 0 {
				req.SilentFor = durationpb.New(d)
			}
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				devices, err := allDevices(ctx, c, req)
				if err != nil {
					return err
				}
				slices.SortStableFunc(devices, less)
				if reverse {
					slices.Reverse(devices)
				}
				return a.printDevices(devices, form)
			})
		},
	}
	form.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&req.State, "state", "", "only admitted, pending or removed ones")
	flags.StringVar(&req.Matches, "match", "", "only with this in ID, host, account or mailbox")
	flags.StringVar(&req.Condition, "condition", "", `only where this condition holds; "any" is any problem`)
	flags.StringVar(&req.Version, "version", "", "only with this in the agent's version or the system")
	flags.StringVar(&silent, "silent", "", "only those not heard of for this long, e.g. 7d")
	flags.StringVar(&order, "sort", "joined", "joined, contact, host, problems, unproved or version")
	flags.BoolVar(&reverse, "reverse", false, "the other way round")
	return cmd
}

// deviceOrders are the orders of --sort, with what needs a look first where there is such a thing.
func deviceOrders() map[string]func(a, b *controlv1.Device) int {
	unproved := func(d *controlv1.Device) int { return int(d.GetCredentials()) - int(d.GetProved()) }
	at := func(t *timestamppb.Timestamp) time.Time {
		if t == nil {
			return time.Time{}
		}
		return t.AsTime()
	}
	return map[string]func(a, b *controlv1.Device) int{
		"joined":   func(a, b *controlv1.Device) int { return at(a.GetJoined()).Compare(at(b.GetJoined())) },
		"contact":  func(a, b *controlv1.Device) int { return at(a.GetLastContact()).Compare(at(b.GetLastContact())) },
		"problems": func(a, b *controlv1.Device) int { return cmp.Compare(problems(b), problems(a)) },
		"unproved": func(a, b *controlv1.Device) int { return cmp.Compare(unproved(b), unproved(a)) },
		"host": func(a, b *controlv1.Device) int {
			return strings.Compare(strings.ToLower(a.GetFacts().GetHostname()), strings.ToLower(b.GetFacts().GetHostname()))
		},
		"version": func(a, b *controlv1.Device) int {
			return compareVersions(a.GetFacts().GetAgentVersion(), b.GetFacts().GetAgentVersion())
		},
	}
}

// compareVersions has numbers as numbers: 1.9 comes before 1.10. What is not one is
// compared as text.
func compareVersions(a, b string) int {
	digit := func(c rune) bool { return c >= '0' && c <= '9' }
	run := func(s string) (head, rest string) {
		if s == "" {
			return "", ""
		}
		first := digit(rune(s[0]))
		end := strings.IndexFunc(s, func(c rune) bool { return digit(c) != first })
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:]
	}
	for a != "" || b != "" {
		var x, y string
		x, a = run(a)
		y, b = run(b)
		if order := cmp.Compare(number(x), number(y)); order != 0 {
			return order
		}
		if order := strings.Compare(x, y); order != 0 {
			return order
		}
	}
	return 0
}

// number is -1 for what is none.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func allDevices(ctx context.Context, c controlv1.AdminServiceClient, req *controlv1.ListDevicesRequest) ([]*controlv1.Device, error) {
	var out []*controlv1.Device
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

func (a *app) printDevices(devices []*controlv1.Device, form format) error {
	switch {
	case form.json:
		return printJSON(a.out, devices)
	case form.csv:
		return devicesCSV(a.out, devices)
	default:
		return table(a.out, deviceRows(devices))
	}
}

func problems(d *controlv1.Device) int {
	n := 0
	for _, c := range d.GetConditions() {
		if c.GetSeverity() != "info" {
			n++
		}
	}
	return n
}

func deviceRows(devices []*controlv1.Device) [][]string {
	rows := [][]string{{"DEVICE", "HOST", "SYSTEM", "AGENT", "STATE", "LAST CONTACT", "CREDENTIALS", "PROVED", "PROBLEMS"}}
	for _, d := range devices {
		rows = append(rows, []string{
			d.GetId(), dash(d.GetFacts().GetHostname()), dash(d.GetFacts().GetOs()), dash(d.GetFacts().GetAgentVersion()), d.GetState(),
			minute(d.GetLastContact()), fmt.Sprint(d.GetCredentials()), fmt.Sprint(d.GetProved()), fmt.Sprint(problems(d)),
		})
	}
	return rows
}

func devicesCSV(out io.Writer, devices []*controlv1.Device) error {
	rows := [][]string{{
		"device", "hostname", "system", "system_version", "agent_version", "state", "joined", "last_contact", "identity_ends",
		"accounts", "credentials", "proved", "conditions",
	}}
	for _, d := range devices {
		var codes []string
		for _, c := range d.GetConditions() {
			codes = append(codes, c.GetCode())
		}
		rows = append(rows, []string{
			d.GetId(), d.GetFacts().GetHostname(), d.GetFacts().GetOs(), d.GetFacts().GetOsVersion(), d.GetFacts().GetAgentVersion(),
			d.GetState(), moment(d.GetJoined(), full), moment(d.GetLastContact(), full), moment(d.GetIdentityEnds(), full),
			strings.Join(d.GetAccounts(), " "), fmt.Sprint(d.GetCredentials()), fmt.Sprint(d.GetProved()), strings.Join(codes, " "),
		})
	}
	return writeCSV(out, rows)
}

// full is the form of times in CSV, always UTC.
const full = sheet.Full

// writeCSV leaves out what tables show for what is not there.
func writeCSV(out io.Writer, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if cell == none {
				row[i] = ""
			}
		}
	}
	return sheet.Write(out, rows)
}

// format is how a list is written.
type format struct{ json, csv bool }

func (f *format) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.csv, "csv", false, "as CSV, with all columns")
	cmd.Flags().BoolVar(&f.json, "json", false, "as JSON, with everything")
	cmd.MarkFlagsMutuallyExclusive("csv", "json")
}
