package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/policy"
	"smime-agent/server-stub/report"
	"smime-agent/server-stub/site"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check people and rules, or put them in force"}
	cmd.AddCommand(
		a.policyApply("check", "Say what is wrong in the files, and what would change", true, false),
		a.policyApply("diff", "Say who would gain or lose which certificate, and what else would change", true, true),
		a.policyApply("apply", "Put the files in force; what is wrong changes nothing", false, false))
	return cmd
}

func (a *app) policyApply(verb, short string, dryRun, effects bool) *cobra.Command {
	var rules, people string
	var asJSON bool
	cmd := &cobra.Command{
		Use: verb, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rulesText, err := os.ReadFile(a.file(rules, site.PolicyFile))
			if err != nil {
				return cure(err, "Name the files with --rules and --people.")
			}
			peopleText, err := os.ReadFile(a.file(people, site.PeopleFile))
			if err != nil {
				return cure(err, "Name the files with --rules and --people.")
			}
			partners, err := site.PartnerFiles(rulesText, filepath.Dir(a.file(rules, site.PolicyFile)))
			if err != nil {
				return cure(err, "Let partners name files and folders beside the rules that can be read.")
			}
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				resp, err := upload(ctx, c, &controlv1.ApplyPolicyRequest{
					PolicyYaml: rulesText, PolicyName: nameIn(rules), PeopleCsv: peopleText, PeopleName: nameIn(people), DryRun: dryRun,
				}, partners)
				switch {
				case err != nil:
					return err
				case asJSON:
					return printJSON(a.out, []*controlv1.ApplyPolicyResponse{resp})
				default:
					return a.policyResult(resp, dryRun, effects)
				}
			})
		},
	}
	cmd.Flags().StringVar(&rules, "rules", "", "rules file (default: policy.yaml of the data directory)")
	cmd.Flags().StringVar(&people, "people", "", "people file (default: people.csv of the data directory)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, with all effects")
	return cmd
}

// uploadPart is how much of a file one message carries.
const uploadPart = 128 << 10

// nameIn is how messages of the server name a file; nothing for the usual one.
func nameIn(flag string) string {
	if len(flag) > report.MaxText {
		flag = filepath.Base(flag)
	}
	return strings.ToValidUTF8(flag, "?")
}

// upload sends both files in parts: those of a large company do not fit one message.
func upload(ctx context.Context, c controlv1.AdminServiceClient, whole *controlv1.ApplyPolicyRequest, partners []policy.PartnerFile) (*controlv1.ApplyPolicyResponse, error) {
	stream, err := c.UploadPolicy(ctx)
	if err != nil {
		return nil, err
	}
	rulesIn, peopleIn := bytes.NewBuffer(whole.GetPolicyYaml()), bytes.NewBuffer(whole.GetPeopleCsv())
	for first := true; first || rulesIn.Len()+peopleIn.Len() > 0; first = false {
		part := &controlv1.ApplyPolicyRequest{DryRun: whole.GetDryRun(), PolicyYaml: rulesIn.Next(uploadPart)}
		part.PeopleCsv = peopleIn.Next(uploadPart - len(part.GetPolicyYaml()))
		if first {
			part.PolicyName, part.PeopleName = whole.GetPolicyName(), whole.GetPeopleName()
		}
		if stream.Send(&controlv1.UploadPolicyRequest{Part: part}) != nil {
			break // the answer says why
		}
	}
	for _, f := range partners { // each in a part of its own: one is at most as large as a message
		part := &controlv1.ApplyPolicyRequest{DryRun: whole.GetDryRun(), Partners: []*controlv1.PartnerFile{{Name: f.Name, Content: f.Content}}}
		if stream.Send(&controlv1.UploadPolicyRequest{Part: part}) != nil {
			break
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetResult(), err
}

func (a *app) policyResult(resp *controlv1.ApplyPolicyResponse, dryRun, effects bool) error {
	verb := "In force"
	if dryRun {
		verb = "Good"
	}
	lines := append([]string{fmt.Sprintf("%s: %d people, revision %s.", verb, resp.GetPeople(), resp.GetRevision())}, resp.GetChanges()...)
	if len(resp.GetChanges()) == 0 {
		lines = append(lines, "nothing changes")
	}
	if _, err := fmt.Fprintln(a.out, strings.Join(lines, "\n  ")); err != nil || !effects {
		return err
	}
	rows := [][]string{{"", "ACCOUNT", "PROFILE", "MAILBOXES", "WHAT"}}
	signs := map[string]string{"gains": "+", "loses": "-", "changes": "~"}
	for _, e := range resp.GetEffects() {
		rows = append(rows, []string{signs[e.GetKind()], e.GetAccount(), e.GetProfile(), strings.Join(e.GetMailboxes(), " "), dash(e.GetDetail())})
	}
	if len(rows) == 1 {
		return nil
	}
	if resp.GetEffectsCut() {
		rows = append(rows, []string{"…", "and more", "", "", ""})
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return err
	}
	return table(a.out, rows)
}
