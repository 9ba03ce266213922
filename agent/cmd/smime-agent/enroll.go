package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/status"
)

func (a *app) enrollCommand() *cobra.Command {
	var code string
	cmd := &cobra.Command{
		Use: "enroll [MAILBOX|ID]", Short: "Start getting a certificate", Args: cobra.MaximumNArgs(1),
		Long: "Start getting a certificate that policy gives you: agrees to one that waits for you,\n" +
			"and asks again for one that was refused or declined.\n\n" +
			"With --code it hands in the code that was mailed to your mailbox.",
		RunE: func(cmd *cobra.Command, args []string) error {
			target := ""
			if len(args) == 1 {
				target = args[0]
			}
			byCode := cmd.Flags().Changed("code")
			if code = strings.TrimSpace(code); byCode && code == "" {
				return complaint{key: "nocode", code: exitUsage}
			}
			if len(code) > longestCode {
				return complaint{key: "wrongcode", code: exitFailed}
			}
			return a.call(cmd.Context(), func(c *local.Client) error {
				if byCode {
					return a.confirm(cmd.Context(), c, target, code)
				}
				return a.enroll(cmd.Context(), c, target)
			})
		},
	}
	cmd.Flags().StringVar(&code, "code", "", "the code that was mailed to the mailbox")
	return cmd
}

// longestCode is more than any that is mailed; the service takes no longer one.
const longestCode = 64

// confirm hands in a code for what waits for one.
func (a *app) confirm(ctx context.Context, c *local.Client, target, code string) error {
	moved, err := c.Confirm(ctx, target, code)
	if err != nil {
		return about{target, err}
	}
	for _, id := range moved {
		if err := a.say("%s", a.text.Say("cli.confirmed", map[string]any{"Target": oneLine(string(id))})); err != nil {
			return err
		}
	}
	return nil
}

// enroll does to each credential what brings it on.
func (a *app) enroll(ctx context.Context, c *local.Client, target string) error {
	r, err := c.Status(ctx)
	if err != nil {
		return err
	}
	chosen := a.choose(r, target)
	if len(chosen) == 0 {
		reason := local.ReasonNotFound
		if target == "" {
			reason = local.ReasonNothing
		}
		return about{target, &local.Error{Reason: reason}}
	}
	for _, credential := range chosen {
		done, err := a.bringOn(ctx, c, credential)
		if err != nil {
			return about{credential.Mailbox, err}
		}
		name := oneLine(credential.Mailbox + " (" + credential.Store + ")")
		if err := a.say("%s", a.text.Say("cli."+done, map[string]any{"Target": name})); err != nil {
			return err
		}
	}
	return nil
}

// bringOn gives the name of the sentence that says what was done.
func (a *app) bringOn(ctx context.Context, c *local.Client, credential status.Credential) (done string, err error) {
	switch credential.State {
	case enroll.Wanted:
		_, err = c.Decide(ctx, string(credential.ID), enroll.Approve)
		return "approved", err
	case enroll.Over:
		_, err = c.Renew(ctx, string(credential.ID))
		return "renewing", err
	case enroll.Active, enroll.Kept:
		return "already", nil
	case enroll.Consented, enroll.Requested, enroll.Submitted, enroll.Issued, enroll.Installed, enroll.Prepared:
		return "underway", nil
	}
	return "underway", nil
}

// choose takes the newest credential of each mailbox and store that the target
// names; without a target, of the caller's own.
func (a *app) choose(r status.Report, target string) []status.Credential {
	me, err := a.User()
	var chosen []status.Credential
	for _, c := range r.Credentials {
		named := string(c.ID) == target || c.Mailbox == target || slices.Contains(c.Mailboxes, target)
		mine := target == "" && (err != nil || c.User == me.ID)
		if c.State == enroll.Kept || (!named && !mine) {
			continue
		}
		at := slices.IndexFunc(chosen, func(b status.Credential) bool {
			return b.User == c.User && b.Mailbox == c.Mailbox && b.Store == c.Store && b.Profile == c.Profile
		})
		switch {
		case at < 0:
			chosen = append(chosen, c)
		case c.ID > chosen[at].ID: // IDs sort by age
			chosen[at] = c
		}
	}
	return chosen
}
