package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
)

func (a *app) ledgerCommand() *cobra.Command {
	var form format
	var expiring string
	req := &controlv1.ListLedgerRequest{}
	cmd := &cobra.Command{
		Use: "ledger", Short: "The record of every certificate", Args: cobra.NoArgs,
		Example: "  " + self() + " ledger --expiring 60d\n  " + self() + " ledger --csv > certificates.csv\n  " + self() + " ledger --match alice --status revoked",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := policy.ParseDuration(expiring)
			if err != nil || d < 0 {
				return cure(fmt.Errorf("the time %q is none", expiring), "Write a time such as 60d.")
			}
			if expiring != "" {
				req.ExpiringWithin = durationpb.New(d)
			}
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				entries, err := allEntries(ctx, c, req)
				if err != nil {
					return err
				}
				return a.printLedger(entries, form)
			})
		},
	}
	cmd.AddCommand(a.ledgerShow())
	form.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&expiring, "expiring", "", "only valid certificates that end within this time, e.g. 60d")
	flags.StringSliceVar(&req.Statuses, "status", nil, "only valid, expired, revoked or replaced ones; may be repeated")
	flags.StringVar(&req.Matches, "match", "", "only with this in name, mailbox, host or serial number")
	flags.StringVar(&req.Department, "department", "", "only of this department")
	flags.StringVar(&req.DeviceId, "device", "", "only of this device")
	flags.BoolVar(&req.WithCertificate, "certificates", false, "with the certificates themselves (JSON only)")
	return cmd
}

func (a *app) ledgerShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show SERIAL", Short: "One certificate with its history", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := c.GetCertificate(ctx, &controlv1.GetCertificateRequest{Serial: args[0]})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, []*controlv1.GetCertificateResponse{resp})
				}
				return a.showCertificate(resp)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, with the certificate itself")
	return cmd
}

func (a *app) showCertificate(r *controlv1.GetCertificateResponse) error {
	e := r.GetEntry()
	head := [][]string{
		{"Certificate", e.GetSerial()}, {"Name", dash(e.GetName())}, {"Mailboxes", strings.Join(e.GetMailboxes(), " ")},
		{"Department", dash(e.GetDepartment())}, {"Type", e.GetType()}, {"CA", e.GetCa()}, {"Status", e.GetStatus()},
		{"Valid", day(e.GetNotBefore()) + " to " + day(e.GetNotAfter())}, {"Device", e.GetDeviceId() + " " + e.GetHostname()},
		{"User", e.GetUser()}, {"Store", dash(e.GetStore())}, {"Protection", dash(e.GetProtection())}, {"Proved", proofText(e.GetProof())},
		{"SHA-256", e.GetFingerprintSha256()},
	}
	lines := [][]string{{"TIME", "WHAT", "DETAIL", "CERTIFICATE"}}
	for _, l := range r.GetHistory() {
		lines = append(lines, []string{minute(l.GetAt()), l.GetCode(), dash(l.GetDetail()), l.GetSerial()})
	}
	return a.tables(head, lines)
}

func (a *app) printLedger(entries []*controlv1.LedgerEntry, form format) error {
	switch {
	case form.csv:
		return ledgerCSV(a.out, entries)
	case form.json:
		return printJSON(a.out, entries)
	default:
		return table(a.out, ledgerRows(entries))
	}
}

func allEntries(ctx context.Context, c controlv1.AdminServiceClient, req *controlv1.ListLedgerRequest) ([]*controlv1.LedgerEntry, error) {
	stream, err := c.ListLedger(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []*controlv1.LedgerEntry
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, resp.GetEntries()...)
	}
}

func ledgerRows(entries []*controlv1.LedgerEntry) [][]string {
	rows := [][]string{{"NAME", "MAILBOX", "TYPE", "STATUS", "ENDS", "HOST", "PROVED", "SERIAL"}}
	for _, e := range entries {
		rows = append(rows, []string{
			e.GetName(), e.GetMailbox(), e.GetType(), e.GetStatus(), day(e.GetNotAfter()), dash(e.GetHostname()),
			proofText(e.GetProof()), e.GetSerial(),
		})
	}
	return rows
}

// ledgerCSV writes all columns, with times in RFC 3339. New columns stand at the end.
func ledgerCSV(out io.Writer, entries []*controlv1.LedgerEntry) error {
	rows := [][]string{{
		"name", "mailbox", "department", "serial", "not_before", "not_after", "status", "type", "ca", "device", "hostname",
		"user", "store", "protection", "proved_at", "proof", "revoked_at", "revocation_reason", "enrollment", "fingerprint_sha256",
		"mailboxes", "submitted", "reason", "replaces", "replaced_by",
	}}
	for _, e := range entries {
		rows = append(rows, []string{
			e.GetName(), e.GetMailbox(), e.GetDepartment(), e.GetSerial(), moment(e.GetNotBefore(), full),
			moment(e.GetNotAfter(), full), e.GetStatus(), e.GetType(), e.GetCa(), e.GetDeviceId(), e.GetHostname(), e.GetUser(),
			e.GetStore(), e.GetProtection(), moment(e.GetProof().GetAt(), full), proofWord(e.GetProof()),
			moment(e.GetRevokedAt(), full), e.GetRevocationReason(), e.GetEnrollmentId(), e.GetFingerprintSha256(),
			strings.Join(e.GetMailboxes(), " "), moment(e.GetSubmitted(), full), e.GetReason(), e.GetReplaces(), e.GetReplacedBy(),
		})
	}
	return writeCSV(out, rows)
}

func proofWord(p *controlv1.ProofReport) string {
	switch {
	case p == nil:
		return "none"
	case p.GetOk():
		return "ok"
	default:
		return "failed"
	}
}
