package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
)

const longHelp = `smime-agent gives each person on this machine the certificates for signed and
encrypted mail that policy wants, keeps them alive, and says at any moment in
what state everything is.

Exit codes:
  0    done; for status: everything is in order
  1    not done; for status: a warning
  2    for status and doctor: an error
  3    the service is not running
  64   the command line is wrong
  130  interrupted`

// command is the tree of all commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use: "smime-agent", Short: "E-mail certificates on this machine", Long: longHelp,
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			return a.speak()
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&a.address, "address", "", "address of the service (default: the system's)")
	root.PersistentFlags().StringVar(&a.language, "language", "", "language of the output: en or zh-CN (default: the user's)")
	root.AddCommand(
		a.statusCommand(), a.enrollCommand(),
		a.decideCommand("approve", "Agree to a certificate that waits for it", enroll.Approve, "approved"),
		a.decideCommand("later", "Put a certificate off", enroll.Later, "postponed"),
		a.decideCommand("decline", "Decline a certificate", enroll.Decline, "declined"),
		a.moveCommand("renew", "Ask for a new certificate", "renewing", (*local.Client).Renew),
		a.moveCommand("prove", "Prove that keys and certificates work", "proving", (*local.Client).Prove),
		a.mailCommand(), a.syncCommand(), a.doctorCommand(), a.policyCommand(), a.versionCommand(),
		a.serviceCommand(), a.manCommand(),
	)
	return root
}

// mover is a call of the client that takes a target.
type mover func(c *local.Client, ctx context.Context, target string) ([]enroll.ID, error)

// moveCommand does something to what its argument names.
func (a *app) moveCommand(name, short, done string, move mover) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: name + " [MAILBOX|ID]", Short: short, Args: cobra.MaximumNArgs(1),
		Long: short + ".\n\nWithout an argument it means all of your own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			target := ""
			switch {
			case len(args) == 1:
				target = args[0]
			case all:
				target = local.All
			}
			return a.call(cmd.Context(), func(c *local.Client) error {
				names := known(cmd.Context(), c) // before, for afterwards the service has what was asked for to do
				ids, err := move(c, cmd.Context(), target)
				if err != nil {
					return about{target, err}
				}
				return a.report(cmd.Context(), c, done, ids, names)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "for administrators: those of all users")
	return cmd
}

func (a *app) decideCommand(name, short string, v enroll.Verdict, done string) *cobra.Command {
	return a.moveCommand(name, short, done, func(c *local.Client, ctx context.Context, target string) ([]enroll.ID, error) {
		return c.Decide(ctx, target, v)
	})
}

// known are the names by which people know the credentials; none where the status
// cannot be had, and then the IDs must do.
func known(ctx context.Context, c *local.Client) map[enroll.ID]string {
	names := map[enroll.ID]string{}
	r, err := c.Status(ctx)
	if err != nil {
		return names
	}
	for _, credential := range r.Credentials {
		names[credential.ID] = credential.Mailbox + " (" + credential.Store + ")"
	}
	return names
}

// report says what was done, by mailbox.
func (a *app) report(ctx context.Context, c *local.Client, done string, ids []enroll.ID, names map[enroll.ID]string) error {
	if slices.ContainsFunc(ids, func(id enroll.ID) bool { return names[id] == "" }) { // it began just now
		names = known(ctx, c)
	}
	for _, id := range ids {
		name := names[id]
		if name == "" {
			name = string(id)
		}
		if err := a.say("%s", a.text.Say("cli."+done, map[string]any{"Target": oneLine(name)})); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) mailCommand() *cobra.Command {
	parent := &cobra.Command{Use: "mail", Short: "Put mail programs back to what they had before, or make them ready again"}
	undo := a.moveCommand("undo", "Put back what mail programs had before the agent came", "mailundone", (*local.Client).UndoMail)
	undo.Long += " That holds until policy says something else of mail\nprograms, or until: smime-agent mail apply. Where policy rules mail programs, only an\nadministrator may."
	parent.AddCommand(undo, a.moveCommand("apply", "Make mail programs ready as policy wants, at once", "mailapplied", (*local.Client).ApplyMail))
	return parent
}

func (a *app) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sync", Short: "Ask central management now", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.call(cmd.Context(), func(c *local.Client) error { return c.Sync(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.say("%s", a.text.Say("cli.synced", nil))
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.say("smime-agent %s", a.Version) },
	}
}
